"""Requests that show something: the tokens of plain `generate`, batched, streamed, in every form that users write them."""

import asyncio
import base64

import pytest
import torch
from PIL import Image

from swift.core.errors import SwiftError
from swift.infer_engine import InferRequest, RequestConfig, TransformersEngine
from tests.helpers import shown
from tests.helpers.vlm import PRIORITY, media_of

FAST = ('qwen2_vl', 'llava', 'gemma3', 'mllama', 'qwen2_audio')


@pytest.fixture(scope='module', autouse=True)
def folder(tmp_path_factory):
    return shown.root(tmp_path_factory)


def engine_of(family, **settings):
    if family == 'paligemma':
        settings['template'] = shown.template_of(family)
    return TransformersEngine(shown.model_dir(family), **settings)


@pytest.fixture(scope='module')
def engine(folder):
    return engine_of('qwen2_vl', max_batch_size=8)


def config(**settings):
    return RequestConfig(**{'max_tokens': 8, 'temperature': 0, 'return_details': True, 'ignore_eos': True, **settings})


def ask(text, **media):
    return InferRequest([{'role': 'user', 'content': text}], **media)


def requests_for(family):
    rows = [ask('hi'), ask('what is the capital of France, and why?')]
    for kind in media_of(family):
        rows += [ask(f'<{kind}>what is {"really " * seed}this?', **{f'{kind}s': [shown.file_of(kind, seed)]}) for seed in range(3)]
    kind = media_of(family)[0]
    return [*rows, ask(f'<{kind}>or <{kind}>?', **{f'{kind}s': [shown.file_of(kind, 1), shown.file_of(kind, 2)]})]


def plain(engine, request, count=8):
    """(tokens, their log-probabilities) of one request by transformers alone."""
    prompt = engine.template.prompt(request.conversation())
    ids = torch.tensor([prompt.input_ids])
    with torch.no_grad():
        found = engine.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **engine.template.media_inputs(prompt), max_new_tokens=count,
            do_sample=False, eos_token_id=10**6, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    tokens = found.sequences[0, ids.shape[1] :].tolist()
    return tokens, [torch.log_softmax(step[0].float(), -1)[token].item() for step, token in zip(found.logits, tokens, strict=True)]


@pytest.mark.parametrize('family', [f if f in FAST else pytest.param(f, marks=pytest.mark.slow) for f in PRIORITY])
def test_answers_are_those_of_plain_generate(family):
    engine = engine_of(family, max_batch_size=8)
    requests = requests_for(family)
    before = {name: part._attn_implementation for name, part in parts_of_config(engine.model.config)}
    for _ in range(2):  # again: what a model remembers of the last media does not reach the next texts
        answers = engine.infer(requests, config(logprobs=True))
        for request, answer in zip(requests, answers, strict=True):
            tokens, logprobs = plain(engine, request)
            assert answer.choices[0].token_ids == tokens
            found = [entry['logprob'] for entry in answer.choices[0].logprobs['content']]
            assert found == pytest.approx(logprobs, abs=2e-3)
    assert engine._way[0] == ('static' if family == 'paligemma' else 'slots')
    assert engine._joins and all(engine._joins.values())
    assert {name: part._attn_implementation for name, part in parts_of_config(engine.model.config)} == before


def parts_of_config(config, name=''):
    yield name, config
    for sub in getattr(config, 'sub_configs', ()):
        if getattr(config, sub, None) is not None:
            yield from parts_of_config(getattr(config, sub), f'{name}.{sub}')


def test_slots_change_the_attention_of_the_language_model_alone(engine):
    from swift.infer_engine.cache import NAME
    from swift.infer_engine.probe import slot_attention_on

    with slot_attention_on(engine.model):
        inside = {name: part._attn_implementation for name, part in parts_of_config(engine.model.config)}
    assert inside['.text_config'] == NAME and inside['.vision_config'] == 'sdpa'


def test_every_way_to_write_a_picture_is_the_same_request(engine):
    path = shown.file_of('image', 0)
    data = 'data:image/png;base64,' + base64.b64encode(open(path, 'rb').read()).decode()

    def parts(*content):
        return InferRequest([{'role': 'user', 'content': list(content)}])

    words = {'type': 'text', 'text': 'what?'}
    ways = [
        ask('<image>what?', images=[path]), ask('what?', images=[Image.open(path)]), ask('<image>what?', images=[data]),
        ask('<image>what?', images=[open(path, 'rb').read()]),
        parts({'type': 'image_url', 'image_url': {'url': data}}, words), parts({'type': 'image_url', 'image_url': path}, words),
        parts({'type': 'image', 'image': f'file://{path}'}, words),
        {'messages': [{'role': 'user', 'content': '<image>what?'}], 'images': [path]},
    ]  # fmt: skip
    answers = engine.infer(ways, config())
    assert len({tuple(answer.prompt_token_ids) for answer in answers}) == 1
    assert [a.choices[0].token_ids for a in answers] == [plain(engine, ways[0])[0]] * len(ways)


def test_sounds_and_videos_as_content_parts(folder):
    engine = engine_of('qwen2_5_omni_thinker')
    sound = base64.b64encode(open(shown.file_of('audio', 0), 'rb').read()).decode()
    pairs = [
        ({'type': 'input_audio', 'input_audio': {'data': sound, 'format': 'wav'}}, ask('<audio>what?', audios=[shown.file_of('audio', 0)])),
        ({'type': 'video_url', 'video_url': {'url': shown.file_of('video', 0)}}, ask('<video>what?', videos=[shown.file_of('video', 0)])),
    ]
    for part, same in pairs:
        nested = InferRequest([{'role': 'user', 'content': [part, {'type': 'text', 'text': 'what?'}]}])
        one, other = engine.infer([nested, same], config())
        assert one.choices[0].token_ids == other.choices[0].token_ids


def test_streamed_and_awaited_answers_are_the_same(engine):
    request = ask('<image>what is <image>?', images=[shown.file_of('image', 0), shown.file_of('image', 1)])
    wanted = engine.infer([request], config())[0].choices[0].message.content
    assert ''.join(p.choices[0].delta.content or '' for p in engine.infer([request], config(stream=True))[0]) == wanted

    async def both():
        pieces = [p async for p in await engine.infer_async(request, config(stream=True))]
        whole = await asyncio.gather(*(engine.infer_async(r, config()) for r in (request, ask('hi'), request)))
        return ''.join(p.choices[0].delta.content or '' for p in pieces), [a.choices[0].message.content for a in whole]

    streamed, (first, _, last) = asyncio.run(both())
    assert streamed == first == last == wanted


def test_choices_of_one_request_read_its_media_once(engine, monkeypatch):
    read, own = [], engine.template.read_media
    monkeypatch.setattr(engine.template, 'read_media', lambda sample: read.append(1) or own(sample))
    answer = engine.infer([ask('<image>?', images=[shown.file_of('image', 0)])], config(n=12, temperature=1.0, seed=1))[0]
    assert len(read) == 1 and len({tuple(c.token_ids) for c in answer.choices}) > 6  # in two batches of at most 8
    alone = engine.infer([ask('<image>?', images=[shown.file_of('image', 0)])], config(temperature=1.0, seed=1))[0]
    assert alone.choices[0].token_ids == answer.choices[0].token_ids


def test_beams_with_a_picture_are_transformers_own(engine):
    request = ask('<image>?', images=[shown.file_of('image', 2)])
    prompt = engine.template.prompt(request.conversation())
    ids = torch.tensor([prompt.input_ids])
    with torch.no_grad():
        wanted = engine.model.generate(input_ids=ids, **engine.template.media_inputs(prompt), num_beams=3, max_new_tokens=8, do_sample=False)
    found = engine.infer([request], config(num_beams=3, ignore_eos=False))[0].choices[0].token_ids
    assert found == wanted[0, ids.shape[1] :].tolist()[: len(found)]


def test_a_file_that_can_not_be_read_fails_its_request_alone(engine, tmp_path):
    data = open(shown.file_of('image', 0), 'rb').read()
    (tmp_path / 'cut.png').write_bytes(data[: len(data) // 2])
    good = ask('<image>?', images=[shown.file_of('image', 0)])
    rows = [good, ask('<image>?', images=[str(tmp_path / 'cut.png')]), ask('<image>?', images=[str(tmp_path / 'none.png')]), good]
    with pytest.raises(SwiftError, match=r'request 2: .*none\.png does not exist'):
        engine.infer(rows, config())
    with pytest.raises(SwiftError, match=r'request 1: .*cut\.png can not be decoded'):
        engine.infer(rows[:2], config())
    first, cut, none, last = engine.infer(rows, config(), strict=False)
    assert 'cut.png' in str(cut) and 'none.png' in str(none)
    assert first.choices[0].token_ids == last.choices[0].token_ids == plain(engine, good)[0]
    each = list(engine.infer_each([(row, config()) for row in rows]))
    assert [isinstance(answer, SwiftError) for answer in each] == [False, True, True, False]
    with pytest.raises(SwiftError, match=r'cut\.png can not be decoded'):
        list(engine.infer([rows[1]], config(stream=True))[0])


def test_a_prompt_too_long_names_the_tokens_of_its_media(folder):
    small = engine_of('qwen3_vl', max_model_len=40)
    with pytest.raises(SwiftError, match=r'the prompt has 48 tokens, about 34 of them for 1 video, and the model takes 40.*nframes'):
        small.infer([ask('<video>?', videos=[shown.file_of('video', 0)])], config())


def test_settings_and_environment_bound_what_is_read(folder, monkeypatch):
    path = shown.file_of('image', 2)
    tokens = {}
    for name, settings in (('own', {}), ('flag', {'min_pixels': 28 * 28 * 40})):
        tokens[name] = engine_of('qwen2_vl', **settings).infer([ask('<image>?', images=[path])], config())[0].usage.prompt_tokens
    monkeypatch.setenv('MIN_PIXELS', str(28 * 28 * 40))
    tokens['environment'] = engine_of('qwen2_vl').infer([ask('<image>?', images=[path])], config())[0].usage.prompt_tokens
    assert tokens['own'] < tokens['flag'] == tokens['environment']
    with pytest.raises(SwiftError, match="max_pixel: no such setting of a model; did you mean 'max_pixels'"):
        engine_of('qwen2_vl', max_pixel=3)


def test_rows_share_a_batch_only_where_that_changes_nothing(engine, monkeypatch):
    """A model whose rows differ in a batch is answered one row at a time, with the same tokens."""
    from swift.infer_engine import static

    sizes = []
    own = static.StaticLane._sample
    monkeypatch.setattr(static.StaticLane, '_sample', lambda self, rows: sizes.append(len(rows)) or own(self, rows))
    requests = requests_for('qwen2_vl')[2:5]
    together = engine.infer(requests, config())
    assert sizes == [3]
    careful = engine_of('qwen2_vl')
    monkeypatch.setattr(static, 'batches_like_alone', lambda *_: False)
    assert [a.choices[0].token_ids for a in careful.infer(requests, config())] == [a.choices[0].token_ids for a in together]
    assert sizes == [3, 1, 1, 1]
