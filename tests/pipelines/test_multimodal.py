"""Whole runs on rows that show something, through the commands."""

import json
import os
import shutil

import pytest

from swift import infer_main, merge_lora_main, pretrain_main, sft_main
from swift.core.errors import ArgumentsError, DatasetError, SwiftError
from tests.helpers.shown import file_of, kinds_of, model_dir, root
from tests.helpers.vlm import PRIORITY

SAID = [{'role': 'user', 'content': 'What is this?'}, {'role': 'assistant', 'content': 'An answer of some words.'}]


@pytest.fixture(scope='module', autouse=True)
def media_root(tmp_path_factory):
    return root(tmp_path_factory)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path / 'cache'))


def write_rows(path, rows) -> str:
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return str(path)


def rows_of(kinds, count: int = 8) -> list[dict]:
    """Rows that show one medium, two, none in turn; each kind alone."""
    rows = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        shown = (1, 2, 0)[number % 3]
        tags = f'<{kind}>' * shown
        said = [{'role': 'user', 'content': f'{tags}What is number {number}?'}, SAID[1]]
        files = {f'{kind}s': [file_of(kind, (number + i) % 4) for i in range(shown)]} if shown else {}
        rows.append({'messages': said, **files})
    return rows


def settings(family: str, data: str, out, **more) -> dict:
    template = {'template': 'paligemma'} if family == 'paligemma' else {}
    return {
        'model': model_dir(family), 'dataset': data, 'output_dir': str(out), 'max_steps': 2, 'per_device_train_batch_size': 4,
        'logging_steps': 1, 'save_steps': 2, 'learning_rate': 1e-3, **template, **more,
    }  # fmt: skip


def losses(result: dict) -> list[float]:
    return [line['loss'] for line in result['log_history'] if 'loss' in line]


ALL = {'freeze_vit': False, 'freeze_aligner': False}


@pytest.mark.parametrize('family', ['qwen2_vl', *(pytest.param(f, marks=pytest.mark.slow) for f in PRIORITY if f != 'qwen2_vl')])
def test_a_trip_from_pictures_to_answers(family, tmp_path):
    """LoRA on everything → merged → asked; the merged model answers as the adapter does."""
    data = write_rows(tmp_path / 'rows.jsonl', rows_of(kinds_of(family)))
    result = sft_main(settings(family, data, tmp_path / 'out', lora_dropout=0.0, **ALL))
    first, second = losses(result)
    assert second < first
    checkpoint = result['last_model_checkpoint']
    assert os.path.isfile(os.path.join(checkpoint, 'processor_config.json')) or os.path.isfile(os.path.join(checkpoint, 'preprocessor_config.json'))
    merge_lora_main({'adapters': [checkpoint], 'output_dir': str(tmp_path / 'merged')})
    asked = write_rows(tmp_path / 'ask.jsonl', rows_of(kinds_of(family), 3))
    answers = {}
    for name, which in (('adapter', {'adapters': [checkpoint]}), ('merged', {'model': str(tmp_path / 'merged')})):
        path = str(tmp_path / f'{name}.jsonl')
        infer_main({**which, 'val_dataset': asked, 'result_path': path, 'max_new_tokens': 6, 'temperature': 0})
        answers[name] = [json.loads(line)['response'] for line in open(path)]
    assert answers['adapter'] == answers['merged'] and len(answers['merged']) == 3


@pytest.mark.parametrize('family', ['llava', 'qwen2_vl', *(pytest.param(f, marks=pytest.mark.slow) for f in PRIORITY if f not in ('llava', 'qwen2_vl'))])
def test_flat_padded_packed_and_accumulated_are_one_training(family, tmp_path):
    data = write_rows(tmp_path / 'rows.jsonl', rows_of(kinds_of(family)))
    common = dict(tuner_type='full', dataset_shuffle=False, train_dataloader_shuffle=False, **ALL)
    ways = {
        'flat': {},
        'padded': {'padding_free': False},
        'accumulated': {'per_device_train_batch_size': 1, 'gradient_accumulation_steps': 4},
        'workers': {'dataloader_num_workers': 2},
        'lazy': {'lazy_tokenize': True},
    }
    found = {name: losses(sft_main(settings(family, data, tmp_path / name, **common, **way))) for name, way in ways.items()}
    for name, values in found.items():
        assert values == pytest.approx(found['flat'], abs=2e-5), name
    packed = sft_main(settings(family, data, tmp_path / 'packed', **common, packing=True, max_length=2048, per_device_train_batch_size=1, max_steps=1, save_steps=1))
    whole = sft_main(settings(family, data, tmp_path / 'whole', **common, per_device_train_batch_size=8, max_steps=1, save_steps=1))
    assert losses(packed) == pytest.approx(losses(whole), abs=2e-5)


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    from tests.trajectories.job import stored_weights

    data = write_rows(tmp_path / 'rows.jsonl', rows_of(['image', 'video'], 12))
    straight = sft_main(settings('qwen2_5_vl', data, tmp_path / 'a', max_steps=4, lora_dropout=0.0, nframes=4, **ALL))
    half = sft_main(settings('qwen2_5_vl', data, tmp_path / 'b', max_steps=4, lora_dropout=0.0, nframes=4, **ALL))
    shutil.rmtree(os.path.join(half['run_dir'], 'checkpoint-4'))
    again = sft_main({'resume_from_checkpoint': os.path.join(half['run_dir'], 'checkpoint-2')})
    mine, theirs = (stored_weights(r['last_model_checkpoint']) for r in (straight, again))
    assert all((mine[key] == theirs[key]).all() for key in mine) and len(mine) > 4


def test_streaming_reads_pictures_as_they_come(tmp_path):
    data = write_rows(tmp_path / 'rows.jsonl', rows_of(['image'], 12))
    ways = ({}, {'streaming': True}, {'streaming': True, 'packing': True, 'max_length': 256, 'per_device_train_batch_size': 1})
    for number, way in enumerate(ways):
        assert len(losses(sft_main(settings('llava', data, tmp_path / f'o{number}', **way)))) == 2


@pytest.mark.parametrize('family', ['qwen2_vl', 'gemma3', pytest.param('mllama', marks=pytest.mark.slow)])
def test_plain_text_with_pictures_is_trained_whole(family, tmp_path):
    data = write_rows(tmp_path / 'rows.jsonl', [{'text': f'Before <image> after number {n}.', 'images': [file_of('image', n % 3)]} for n in range(8)])
    result = pretrain_main(settings(family, data, tmp_path / 'out'))
    assert losses(result)[1] < losses(result)[0]


def test_bad_media_are_bad_rows(tmp_path, caplog):
    rows = rows_of(['image'], 30)
    rows[3]['images'] = [str(tmp_path / 'gone.png')]
    data = write_rows(tmp_path / 'rows.jsonl', rows)
    result = sft_main(settings('llava', data, tmp_path / 'out'))
    assert len(losses(result)) == 2
    assert f'{data}:4' in caplog.text and 'gone.png does not exist' in caplog.text
    with pytest.raises(SwiftError, match='gone.png does not exist'):
        sft_main(settings('llava', data, tmp_path / 'strict', strict=True))
    for row in rows:
        if row.get('images'):
            row['images'] = [str(tmp_path / 'gone.png')] * len(row['images'])
    with pytest.raises(DatasetError, match='rows are bad'):
        sft_main(settings('llava', write_rows(tmp_path / 'all.jsonl', rows), tmp_path / 'all'))


def test_a_picture_that_breaks_off_is_found_when_it_is_read(tmp_path, caplog):
    whole = open(file_of('image', 0), 'rb').read()
    (tmp_path / 'half.png').write_bytes(whole[: len(whole) // 2])
    rows = rows_of(['image'], 8)
    rows[0]['images'] = [str(tmp_path / 'half.png')]
    data = write_rows(tmp_path / 'rows.jsonl', rows)
    result = sft_main(settings('llava', data, tmp_path / 'out', dataset_shuffle=False, train_dataloader_shuffle=False))
    assert len(losses(result)) == 2 and 'half.png' in caplog.text and f'{data}:1' in caplog.text


def test_budgets_are_flags_environment_and_model_kwargs_and_are_kept_for_inference(tmp_path, monkeypatch):
    rows = [{'messages': [{'role': 'user', 'content': '<image>What?'}, SAID[1]], 'images': [file_of('image', 2)]}] * 4
    data = write_rows(tmp_path / 'rows.jsonl', rows)

    def tokens(**more):
        from swift import plan_main

        return plan_main({'model': model_dir('qwen2_vl'), 'dataset': data, **more})['data']['tokens']

    whole = tokens()
    assert tokens(max_pixels=784) < whole
    assert tokens(max_pixels=784) == tokens(model_kwargs={'MAX_PIXELS': 784}) == tokens(image_max_token_num=1, image_min_token_num=1)
    monkeypatch.setenv('MAX_PIXELS', '784')
    assert tokens() == tokens(max_pixels=784) < whole
    monkeypatch.delenv('MAX_PIXELS')
    result = sft_main(settings('qwen2_vl', data, tmp_path / 'out', max_pixels=784))
    saved = json.load(open(os.path.join(result['run_dir'], 'args.json')))
    assert saved['max_pixels'] == 784


def test_two_stages_train_the_aligner_first_and_then_everything(tmp_path):
    from safetensors.torch import load_file

    data = write_rows(tmp_path / 'rows.jsonl', rows_of(['image']))
    one = sft_main(settings('llava', data, tmp_path / 'stage1_aligner', tuner_type='full', freeze_llm=True, freeze_vit=True, freeze_aligner=False))
    base = load_file(os.path.join(model_dir('llava'), 'model.safetensors'))
    first = load_file(os.path.join(one['last_model_checkpoint'], 'model.safetensors'))
    changed = {name for name, value in first.items() if not value.equal(base[name])}
    assert changed and all('projector' in name for name in changed)
    two = sft_main({**settings('llava', data, tmp_path / 'stage2'), 'model': str(tmp_path / 'stage1_aligner'), 'tuner_type': 'full', 'freeze_llm': False, **ALL})
    second = load_file(os.path.join(two['last_model_checkpoint'], 'model.safetensors'))
    moved = {name.split('.')[0 if not name.startswith('model.') else 1] for name, value in second.items() if not value.equal(first[name])}
    assert {'language_model', 'vision_tower', 'multi_modal_projector'} <= moved


def test_flags_of_media_are_refused_for_a_model_that_reads_text(tmp_path, tiny_dir):
    data = write_rows(tmp_path / 'rows.jsonl', [{'messages': SAID}])
    with pytest.raises(ArgumentsError, match='freeze_vit'):
        sft_main({'model': tiny_dir, 'dataset': data, 'freeze_vit': False, 'max_pixels': 784, 'output_dir': str(tmp_path / 'out')})
    with pytest.raises(DatasetError, match='reads text only'):
        shown = write_rows(tmp_path / 'shown.jsonl', [{'messages': SAID, 'images': [file_of('image', 0)]}])
        sft_main({'model': tiny_dir, 'dataset': shown, 'output_dir': str(tmp_path / 'out2')})
