"""preview, plan, verify, infer and the chat on rows that show something."""

import base64
import io
import json
import os
import re
import shutil
import sys

import numpy as np
import pytest

from swift import plan_main, preview_main, sft_main, verify_main
from swift.core.errors import SwiftError
from swift.pipelines.infer import infer_main
from tests.helpers import shown
from tests.pipelines.conftest import write_rows

SCRIPT = '<script>alert("x")</script> & more'


@pytest.fixture(scope='module', autouse=True)
def folder(tmp_path_factory):
    return shown.root(tmp_path_factory)


@pytest.fixture(scope='module')
def rows():
    """Pictures, two pictures, a video, and a text."""
    found = [row(f'<image>what is {"really " * i}this?', f'a thing {i}', images=[i % 3]) for i in range(5)]
    found.append(row('<image>and <image>?', 'two', images=[0, 1]))
    found.append(row('<video>?', 'moving', videos=[0]))
    return [*found, row(SCRIPT, 'fine')]


def row(asked, said, **media):
    files = {name: [shown.file_of(name[:-1], seed) for seed in seeds] for name, seeds in media.items()}
    return {'messages': [{'role': 'user', 'content': asked}, {'role': 'assistant', 'content': said}], **files}


@pytest.fixture(scope='module')
def settings(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    data = write_rows(folder / 'rows.jsonl', rows)
    return dict(model=shown.model_dir('qwen2_vl'), dataset=data, dataset_shuffle=False, output_dir=str(folder / 'out'))


@pytest.fixture(scope='module')
def checkpoint(settings):
    """Adapters in the language model, the tower and the aligner."""
    return sft_main({**settings, 'max_steps': 3, 'freeze_vit': False, 'freeze_aligner': False, 'learning_rate': 0.05, 'report_to': 'none',
                     'min_pixels': 28 * 28 * 6, 'per_device_train_batch_size': 2})['last_model_checkpoint']  # fmt: skip


# ---- preview


def test_preview_shows_a_line_instead_of_a_run_of_tokens(settings, rows, capsys):
    found = preview_main({**settings, 'num_samples': 8, 'min_pixels': 28 * 28 * 300})
    out = capsys.readouterr().out
    first = found[0]
    [medium] = first['media']
    assert medium['kind'] == 'image' and medium['tokens'] > 290 and medium['reference'] == rows[0]['images'][0]
    width, height = map(int, medium['size'].split('×'))
    assert width * height == medium['tokens'] * 28 * 28
    assert f'[image 1: {medium["size"]}, {medium["tokens"]} tokens, {rows[0]["images"][0]}]' in first['text']
    assert '<|image_pad|>' not in out and '⟦a thing 0<|im_end|>⟧' in first['text']
    assert f'   image 1 · {medium["size"]} · {medium["tokens"]} tokens · ' in out
    assert [[m['kind'] for m in facts['media']] for facts in found[5:]] == [['image', 'image'], ['video'], []]
    assert '[image 2: ' in found[5]['text'] and 'frames of 52×40 (of 8)' in found[6]['text']


@pytest.mark.parametrize('family', ['gemma3', 'mllama', 'idefics3', 'internvl', 'qwen2_audio', 'glm4v'])
def test_the_pieces_of_every_family_are_the_whole_sample(family):
    from swift.pipelines.preview import segments
    from swift.pipelines.preview_pieces import pieces, seen_of, text_of

    template, kind = shown.template_of(family), shown.kinds_of(family)[0]
    [sample] = template.encode(shown.talk(f'<{kind}>or <{kind}>?', 'it.', **{f'{kind}s': [0, 1]}))
    [part] = segments(sample)
    made = pieces(part, seen_of(part, template), template.tokenizer)
    assert sum(piece.tokens for piece in made) == len(sample)
    text = text_of(made, False)
    assert text.index(f'[{kind} 1: ') < text.index('or') < text.index(f'[{kind} 2: ') < text.index('?') < text.index('it.')
    assert (template.showing.reader.token(kind) or '\0') not in text


def test_the_page_holds_what_the_model_gets(settings, tmp_path, capsys):
    from PIL import Image

    path = tmp_path / 'pages' / 'page.html'
    preview_main({**settings, 'num_samples': 8, 'html': str(path), 'max_pixels': 28 * 28 * 2})
    page = path.read_text(encoding='utf-8')
    assert f'page       {path}' in capsys.readouterr().out
    assert '<script' not in page and '&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; more' in page
    assert re.search(r'<mark>a thing 0&lt;\|im_end\|&gt;</mark>', page) and page.count('<section>') == 8 and page.count('<figure>') == 8
    pictures = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r'data:image/\w+;base64,([^"]+)', page)]
    assert len(pictures) == 8 and pictures[0].size == (56, 28)  # two patches of 28 by 28
    with pytest.raises(SwiftError, match=r'page\.html exists already'):
        preview_main({**settings, 'num_samples': 1, 'html': str(path)})
    assert path.read_text(encoding='utf-8') == page and os.listdir(path.parent) == ['page.html']


def test_a_page_of_sounds_plays_what_the_model_hears_and_stays_small(tmp_path):
    import soundfile

    for i in range(10):
        soundfile.write(tmp_path / f'{i}.wav', 0.3 * np.sin(np.arange(44_100 * 20) * 0.05), 44_100)
    data = write_rows(tmp_path / 'rows.jsonl', [
        {'messages': [{'role': 'user', 'content': '<audio>?'}, {'role': 'assistant', 'content': 'a tone'}], 'audios': [f'{i}.wav']} for i in range(10)
    ])  # fmt: skip
    path = tmp_path / 'page.html'
    found = preview_main(dict(model=shown.model_dir('qwen2_audio'), dataset=data, num_samples=10, html=str(path)))
    assert {facts['media'][0]['size'] for facts in found} == {'20.0 s'}
    page = path.read_text()
    assert page.count('<audio controls') == 10 and len(page) < 5_000_000 and 'its first 9.4 s' in page
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(re.search(r'data:audio/wav;base64,([^"]+)', page)[1])))
    assert rate == 16_000 and np.abs(sound[1000:2000]).max() == pytest.approx(0.3, abs=0.01)


# ---- plan


def test_plan_counts_media_names_what_is_broken_and_says_what_learns(settings, rows, tmp_path, capsys, monkeypatch):
    data = open(shown.file_of('image', 0), 'rb').read()
    (tmp_path / 'cut.png').write_bytes(data[: len(data) // 2])
    more = [*rows * 3, {**rows[0], 'images': [str(tmp_path / 'cut.png')]}, {**rows[0], 'images': ['/nowhere/none.png']}]
    monkeypatch.setenv('MAX_PIXELS', '4000')
    planned = plan_main({**settings, 'dataset': write_rows(tmp_path / 'rows.jsonl', more), 'freeze_vit': False, 'min_pixels': 2000})
    media = planned['data']['media']
    assert media.counts == {'image': 22, 'video': 3} and media.shown == 22 and media.exact
    assert len(media.broken) == 1 and 'rows.jsonl:25' in media.broken[0] and 'cut.png can not be decoded' in media.broken[0]
    assert planned['data']['bad_rows'] == 1 and 'none.png' in planned['data']['first_bad'][0]
    assert planned['budgets'] == {'max_pixels': (4000, 'environment MAX_PIXELS'), 'min_pixels': (2000, 'python')}
    parts = planned['parameters']['parts']
    assert parts['vit'][0] > 0 and parts['llm'][0] > 0 and parts['aligner'][0] == 0
    out = capsys.readouterr().out
    assert re.search(r'media {6}22 images, 3 videos in 22 samples; [\d.]+% of all tokens', out)
    assert 'max_pixels 4000 (environment MAX_PIXELS)' in out and re.search(r'█ \d+% media', out) and 'aligner frozen (' in out


def test_the_share_of_media_is_exact(settings):
    from swift.pipelines.plan_media import media_facts
    from swift.template.runs import media_runs

    template = shown.template_of('smolvlm')
    samples = [template.encode(shown.talk('<image>' * (i % 2) + f'{"word " * i}?', 'it.', **({'images': [i % 3]} if i % 2 else {})))[0] for i in range(6)]
    facts = media_facts(samples, template, {'vision_config': {'patch_size': 4}})
    wanted = [sum(seen.tokens for seen in media_runs(template, s.input_ids, s.media and s.media[0])) for s in samples]
    assert facts.tokens.tolist() == wanted and wanted[1] > 10 and wanted[0] == 0
    assert facts.share == pytest.approx(sum(wanted) / sum(map(len, samples)))
    assert media_facts([samples[0]], template, {}) is None


@pytest.mark.parametrize('learns', [True, False])
def test_activations_of_a_tower_within_a_half(learns):
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    from swift.pipelines.estimate import Tower, estimate_memory

    config = SiglipVisionConfig(hidden_size=64, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4, image_size=64, patch_size=4)
    tower = SiglipVisionModel(config).train(learns).requires_grad_(learns)
    storages = {}
    parameters = {p.untyped_storage().data_ptr() for p in tower.parameters()}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in parameters:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        tower(pixel_values=torch.randn(2, 3, 64, 64))
    estimate = estimate_memory({'vision_config': config.to_dict()}, parameters=0, trainable=0, tokens=1, towers=[Tower(config, 2 * 256, learns)])
    if learns:
        assert estimate.towers == pytest.approx(sum(storages.values()), rel=0.5)
    else:
        assert not storages and estimate.towers == 2 * 256 * 4 * (13 * 64 + 2 * 256)
    assert estimate.total >= estimate.towers


# ---- verify


def test_verify_compares_with_real_media(checkpoint, capsys):
    found = verify_main(dict(adapters=checkpoint))
    assert {name: finding['ok'] for name, finding in found.items()} == {
        'checkpoint complete': True, 'training prompt = inference prompt': True, "our ids = the processor's": True, 'packed = alone': True,
        'merged = base + adapter': True,
    }  # fmt: skip
    assert found["our ids = the processor's"]['detail'].startswith('7 rows with media compared')
    assert found['packed = alone']['detail'] == 'samples run flat, tried on 2 rows with media'
    assert re.search(r'modules beside the text.*with images max\|Δlogit\| [\d.e-]+ of the largest', found['merged = base + adapter']['detail'])


def test_verify_finds_a_tower_of_other_weights(checkpoint, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    infer_main(dict(adapters=checkpoint, merge_lora=True, val_dataset=_one(tmp_path), max_new_tokens=1, result_path=str(tmp_path / 'a')))
    merged = str(tmp_path / 'merged')
    shutil.copytree(f'{checkpoint}-merged', merged)
    found = verify_main(dict(adapters=checkpoint, merged_model=merged))
    assert found['merged = base + adapter']['ok']
    weights = load_file(f'{merged}/model.safetensors')
    name = next(name for name in weights if 'patch_embed' in name)
    weights[name] = weights[name] + torch.randn_like(weights[name])
    save_file(weights, f'{merged}/model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(SwiftError, match=r'merged = base \+ adapter.*with images max'):
        verify_main(dict(adapters=checkpoint, merged_model=merged))


def test_verify_misses_the_processor(checkpoint, tmp_path):
    copy = tmp_path / 'checkpoint-3'
    shutil.copytree(checkpoint, copy)
    os.remove(copy / 'processor_config.json')
    manifest = json.loads((copy / 'manifest.json').read_text())
    files = manifest['files']
    files.pop('processor_config.json') if isinstance(files, dict) else files.remove('processor_config.json')
    (copy / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(SwiftError, match='checkpoint complete.*the files of the processor are missing'):
        verify_main(dict(adapters=str(copy)))


def _one(tmp_path):
    return write_rows(tmp_path / 'one.jsonl', [row('<image>?', 'x', images=[0])])


# ---- infer


def test_rows_are_answered_with_the_budgets_of_the_training(checkpoint, rows, tmp_path):
    data = open(shown.file_of('image', 0), 'rb').read()
    (tmp_path / 'cut.png').write_bytes(data[: len(data) // 2])
    uri = 'data:image/png;base64,' + base64.b64encode(data).decode()
    nested = {'messages': [{'role': 'user', 'content': [{'type': 'image_url', 'image_url': {'url': uri}}, {'type': 'text', 'text': 'what is this?'}]}]}
    path = write_rows(tmp_path / 'rows.jsonl', [*rows, {**rows[0], 'images': ['none.png']}, {**rows[0], 'images': ['cut.png']}, nested])
    flags = dict(adapters=checkpoint, val_dataset=path, temperature=0, max_new_tokens=6)
    answers = infer_main({**flags, 'result_path': str(tmp_path / 'a.jsonl')})
    assert answers == [json.loads(line) for line in (tmp_path / 'a.jsonl').read_text().splitlines()]
    assert [answer['labels'] for answer in answers[:8]] == [r['messages'][1]['content'] for r in rows]
    assert answers[5]['messages'][0]['content'][0] == {'type': 'image', 'image': rows[5]['images'][0]}
    assert 'none.png does not exist' in answers[8]['error'] and 'cut.png can not be decoded' in answers[9]['error']
    assert answers[10]['response'] == answers[0]['response'] and answers[0]['usage']['prompt_tokens'] > 28  # min_pixels of args.json
    fewer = infer_main({**flags, 'val_dataset': _one(tmp_path), 'min_pixels': 784, 'max_pixels': 784, 'result_path': str(tmp_path / 'b.jsonl')})
    more = infer_main({**flags, 'val_dataset': _one(tmp_path), 'result_path': str(tmp_path / 'c.jsonl')})
    assert fewer[0]['usage']['prompt_tokens'] + 5 <= more[0]['usage']['prompt_tokens']
    merged = infer_main({**flags, 'merge_lora': True, 'result_path': str(tmp_path / 'd.jsonl')})
    assert [answer['response'] for answer in merged] == [answer['response'] for answer in answers]


def test_streamed_rows_are_the_same_answers_and_name_what_is_shown(checkpoint, rows, tmp_path, capsys):
    flags = dict(adapters=checkpoint, val_dataset=write_rows(tmp_path / 'rows.jsonl', rows[4:7]), temperature=0, max_new_tokens=6)
    plain = infer_main({**flags, 'result_path': str(tmp_path / 'a.jsonl')})
    capsys.readouterr()
    streamed = infer_main({**flags, 'stream': True, 'result_path': str(tmp_path / 'b.jsonl')})
    assert [answer['response'] for answer in streamed] == [answer['response'] for answer in plain]
    assert f'[2/3] [image {rows[5]["images"][0]}]and [image {rows[5]["images"][1]}]?' in capsys.readouterr().out


# ---- chat


def chat(monkeypatch, checkpoint, *lines):
    monkeypatch.setattr(sys, 'stdin', io.StringIO(''.join(f'{line}\n' for line in lines)))
    return infer_main(dict(adapters=checkpoint, temperature=0, max_new_tokens=4))


def contents(said):
    return said['messages'][-2]['content']


def test_a_tag_asks_for_its_path_and_a_path_stands_before_its_words(monkeypatch, checkpoint, tmp_path, capsys):
    one, two = shown.file_of('image', 0), shown.file_of('image', 1)
    blank = tmp_path / 'my cat.png'
    shutil.copy(one, blank)
    said = chat(
        monkeypatch, checkpoint, 'this <image> and <image>?', one, two, f'{two} what?', f"'{blank}'", 'and this?', f'{str(blank).replace(" ", chr(92) + " ")} so?',
        'clear', f'<video>{SCRIPT}', shown.file_of('video', 0),
    )  # fmt: skip
    images = [[part.get('image') or part.get('video') for part in contents(turn) if part['type'] != 'text'] for turn in said]
    assert images == [[one, two], [two], [str(blank)], [str(blank)], [shown.file_of('video', 0)]]
    assert [part['type'] for part in contents(said[0])] == ['text', 'image', 'text', 'image', 'text']
    assert contents(said[2])[-1]['text'] == 'and this?' and len(said[3]['messages']) == 8 and len(said[4]['messages']) == 2
    assert not capsys.readouterr().err


def test_a_wrong_path_is_named_and_the_chat_goes_on(monkeypatch, checkpoint, capsys):
    said = chat(monkeypatch, checkpoint, '<image>what?', '/nowhere/none.png', '/nowhere/other.png what?', '<audio>?', 'notes.png is a name', 'plain')
    assert [contents(turn) for turn in said] == ['notes.png is a name', 'plain']
    errors = capsys.readouterr().err
    assert 'swift infer: /nowhere/none.png does not exist' in errors and '/nowhere/other.png does not exist' in errors
    assert 'the message has <audio>, but the model takes images and videos only' in errors
    assert errors.count('swift infer: ') == 3


def test_a_model_of_text_takes_tags_for_text(monkeypatch, tiny_dir, capsys):
    monkeypatch.setattr(sys, 'stdin', io.StringIO('<image> is a tag\n'))
    [said] = infer_main(dict(model=tiny_dir, temperature=0, max_new_tokens=2))
    assert contents(said) == '<image> is a tag'


def test_who_types_is_asked_again_and_may_give_up(tmp_path, capsys):
    from swift.pipelines.chat_media import ChatMedia

    good = shown.file_of('image', 0)
    lines = iter([str(tmp_path / 'none.png'), f'"{good}"', str(tmp_path / 'none.png'), ''])
    media = ChatMedia(('image',), lambda question: next(lines), patient=True)
    message = media.message('see <image>')
    assert message == {'role': 'user', 'content': [{'type': 'text', 'text': 'see '}, {'type': 'image', 'image': good}]}
    assert 'none.png does not exist; give another path' in capsys.readouterr().err
    with pytest.raises(SwiftError, match='no path was given for the image'):
        media.message('see <image>')
    assert media.message(good) is None and media.waiting == [('image', good)]
    assert [part['type'] for part in media.message('two <image>s')['content']] == ['text', 'image', 'text'] and not media.waiting


@pytest.mark.parametrize('family', ['qwen2_vl', 'paligemma', 'gemma3', 'mllama', 'qwen2_audio'])
def test_prompts_are_compared_with_the_processor(family, monkeypatch):
    from dataclasses import replace

    from swift.pipelines import verify_media

    template, kind = shown.template_of(family), shown.kinds_of(family)[0]
    rows = [shown.talk(f'<{kind}>' * n + ' what is it?\n\n ok', 'it.', **{f'{kind}s': list(range(n))}) for n in (1, 2)]

    def prompt_of(row):
        return template.prompt(replace(row, messages=row.messages[:-1]))

    assert verify_media.compared_with_processor(rows, template, prompt_of) == (True, '2 rows with media compared')
    monkeypatch.setattr(verify_media, 'processor_ids', lambda *_: [1, 2, 3])
    assert verify_media.compared_with_processor(rows, template, prompt_of)[0] is False
