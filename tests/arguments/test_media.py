"""Flags of multimodal models: where budgets come from, which of them counts, and what makes no sense."""

import pytest

from swift.arguments import Facts, load_saved_args, parse_args, resolve, save_args
from swift.arguments.media import MEDIA
from swift.core.errors import ArgumentsError
from swift.core.jsonl import write_json

BASE = ['--model', 'm', '--dataset', 'd.jsonl']


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in MEDIA:
        monkeypatch.delenv(name.upper(), raising=False)


def parsed(words, command='sft'):
    return parse_args(command, words, quiet=True)


def mistakes(words, command='sft'):
    with pytest.raises(ArgumentsError) as error:
        parsed(words, command)
    return error.value.mistakes


def test_every_source_of_a_budget_in_order(monkeypatch, tmp_path):
    config = tmp_path / 'run.yaml'
    config.write_text('max_pixels: 3\n')
    assert parsed(BASE).max_pixels is None
    monkeypatch.setenv('MAX_PIXELS', '1')
    assert parsed(BASE).max_pixels == 1
    kwargs = ['--model_kwargs', '{"MAX_PIXELS": 2, "use_safetensors": true}']
    args = parsed([*BASE, *kwargs])
    assert (args.max_pixels, args.model_kwargs) == (2, {'use_safetensors': True})
    assert args.sources['max_pixels'] == 'command line, in --model_kwargs'
    assert parsed([str(config), *BASE, *kwargs]).max_pixels == 3
    assert parsed([str(config), *BASE, *kwargs, '--max_pixels', '4']).max_pixels == 4


@pytest.mark.parametrize('name', MEDIA)
def test_variables_keys_and_flags_in_capitals(name, monkeypatch):
    value, typed = {'root_image_dir': ('/pictures', '/pictures'), 'norm_bbox': ('none', 'none')}.get(name, ('2', 2))
    assert getattr(parsed([*BASE, f'--{name}', value]), name) == typed
    assert getattr(parsed([*BASE, f'--{name.upper()}', value]), name) == typed
    assert getattr(parsed([*BASE, '--model_kwargs', f'{{"{name}": "{value}"}}']), name) == typed
    monkeypatch.setenv(name.upper(), value)
    args = parsed(BASE)
    assert getattr(args, name) == typed and args.sources[name] == f'environment {name.upper()}'


def test_a_value_that_is_no_number_names_its_source(monkeypatch, tmp_path):
    assert mistakes([*BASE, '--model_kwargs', '{"Fps": "fast", "max_pixels": "1e3x"}']) == [
        "--model_kwargs Fps takes a number, got 'fast'",
        "--model_kwargs max_pixels takes a whole number, got '1e3x'",
    ]
    monkeypatch.setenv('MAX_PIXELS', '1280*28')
    monkeypatch.setenv('FPS', '-1')
    assert mistakes(BASE) == [
        "environment variable MAX_PIXELS takes a whole number, got '1280*28'",
        '--fps (environment FPS) must be above 0, got -1.0',
    ]


def test_bounds_and_rates():
    assert mistakes([*BASE, '--min_pixels', '5', '--max_pixels', '4']) == ['--min_pixels 5 is above --max_pixels 4']
    assert mistakes([*BASE, '--fps', '1', '--nframes', '4'])[0].startswith('--fps and --nframes both say')
    assert mistakes([*BASE, '--norm_bbox', 'norm'])[0].startswith("--norm_bbox 'norm' is not one of norm1000, none")


def test_the_stronger_source_decides_between_fps_and_nframes(monkeypatch):
    monkeypatch.setenv('FPS', '1')
    args = parsed([*BASE, '--nframes', '4'])
    assert (args.fps, args.nframes) == (None, 4)
    monkeypatch.setenv('NFRAMES', '8')
    args = parsed([*BASE, '--fps', '3'])
    assert (args.fps, args.nframes) == (3.0, None)
    args = parsed(BASE)
    assert (args.fps, args.nframes) == (None, 8)


def test_answers_use_the_budgets_of_the_training(tmp_path, monkeypatch):
    run = tmp_path / 'run' / 'checkpoint-1'
    run.mkdir(parents=True)
    write_json(run / 'adapter_config.json', {'base_model_name_or_path': 'm'})
    monkeypatch.setenv('MAX_PIXELS', '100')
    save_args(parsed([*BASE, '--fps', '3', '--root_image_dir', '/there', '--norm_bbox', 'none']), str(run))
    monkeypatch.delenv('MAX_PIXELS')
    args = parsed(['--adapters', str(run)], 'infer')
    assert (args.max_pixels, args.fps, args.norm_bbox, args.root_image_dir) == (100, 3.0, 'none', None)
    assert parsed(['--adapters', str(run), '--load_data_args', 'true'], 'infer').root_image_dir == '/there'
    args = parsed(['--adapters', str(run), '--max_pixels', '50', '--nframes', '2'], 'infer')
    assert (args.max_pixels, args.fps, args.nframes) == (50, None, 2)


def test_budgets_in_another_programs_args_json(tmp_path):
    write_json(tmp_path / 'args.json', {'model': 'm', 'model_kwargs': {'FPS_MAX_FRAMES': 12, 'other': 1}, 'freeze_vit': False, 'vit_lr': 1e-5})
    values = load_saved_args(str(tmp_path)).values
    assert (values['fps_max_frames'], values['model_kwargs'], values['freeze_vit'], values['vit_lr']) == (12, {'other': 1}, False, 1e-5)


@pytest.mark.parametrize(
    'words, flag, value',
    [
        ('--freeze_vision_tower false', 'freeze_vit', False),
        ('--lora_vision_tower true', 'freeze_vit', False),
        ('--lora_llm false --freeze_vit false', 'freeze_llm', True),
        ('--freeze_vit false --vision_learning_rate 1e-5', 'vit_lr', 1e-5),
        ('--lora_vision_tower true --lora_vision_rank 32', 'vit_lora_rank', 32),
        ('--vit_use_gc false', 'vit_gradient_checkpointing', False),
        ('--rescale_image 1000', 'max_pixels', 1000),
        ('--rescale_image -1', 'max_pixels', None),
        ('--freeze_vit false --vit_lr 1e-5 --optimizer multimodal', 'optimizer', 'multimodal'),
    ],
)
def test_old_spellings_keep_their_meaning(words, flag, value):
    assert getattr(parsed([*BASE, *words.split()]), flag) == value


@pytest.mark.parametrize(
    'words, part',
    [
        ('--freeze_llm true', 'together leave nothing to train'),
        ('--freeze_llm true --tuner_type full', 'together leave nothing to train'),
        ('--vit_lr 1e-5', '--vit_lr has no effect while nothing of the vision and audio towers is trained'),
        ('--aligner_lr 1e-5 --freeze_vit false', '--aligner_lr has no effect while nothing of the aligner is trained'),
        ('--vit_lora_rank 4', '--vit_lora_rank has no effect'),
        ('--vit_lora_rank 4 --tuner_type full --freeze_vit false', 'which trains no adapter'),
        ('--freeze_vit false --vit_lora_rank 0', '--vit_lora_rank must be above 0'),
    ],
)
def test_what_makes_no_sense(words, part):
    assert any(part in line for line in mistakes([*BASE, *words.split()]))


@pytest.mark.parametrize(
    'words',
    [
        '--tuner_type full --freeze_llm true --trainable_parameters lm_head --vit_gradient_checkpointing false',
        '--freeze_llm true --target_modules vit.*.qkv --vit_lr 1e-5',
        '--freeze_llm true --task_type seq_cls --tuner_type full',
        '--modules_to_save multi_modal_projector --aligner_lr 1e-5',
        '--freeze_vit true --freeze_aligner true --freeze_llm false',
    ],
)
def test_what_passes(words):
    parsed([*BASE, *words.split()])


def test_the_two_stages(monkeypatch):
    monkeypatch.setenv('MAX_PIXELS', '1003520')
    first = parsed(
        '--model Qwen/Qwen2.5-VL-7B-Instruct --dataset stage1_data.jsonl --train_type full --freeze_vit true --freeze_llm true '
        '--freeze_aligner false --learning_rate 5e-6 --output_dir output/stage1_aligner'.split()
    )
    assert (first.tuner_type, first.freeze_llm, first.freeze_vit, first.freeze_aligner, first.max_pixels) == ('full', True, True, False, 1003520)
    second = parsed(
        '--model output/stage1_aligner --dataset stage2_data.jsonl --train_type full --freeze_vit false --freeze_llm false '
        '--freeze_aligner false --learning_rate 5e-6 --output_dir output/stage2_full'.split()
    )
    assert (second.freeze_llm, second.freeze_vit, second.freeze_aligner, second.model) == (False, False, False, 'output/stage1_aligner')


def test_a_text_model_has_no_use_for_them(monkeypatch):
    monkeypatch.setenv('MIN_PIXELS', '4')
    words = '--freeze_vit false --vit_lr 1e-5 --max_pixels 9 --vit_gradient_checkpointing true --freeze_aligner true --optimizer multimodal'
    args = parsed([*BASE, *words.split()])
    assert resolve(args, Facts(multimodal=True)).max_pixels == 9
    assert resolve(args, Facts()).max_pixels == 9
    with pytest.raises(ArgumentsError) as error:
        resolve(args, Facts(multimodal=False))
    flags = ['max_pixels', 'freeze_vit', 'vit_lr', 'vit_gradient_checkpointing', 'optimizer']
    assert error.value.mistakes == [f'--{name} has no effect: the model has no vision or audio tower; drop it' for name in flags]
    assert resolve(parsed([*BASE, *words.split(), '--ignore_args_error', 'true']), Facts(multimodal=False)).vit_lr == 1e-5
    assert resolve(parsed([*BASE, '--freeze_vit', 'true', '--vit_gradient_checkpointing', 'false']), Facts(multimodal=False)).freeze_vit


def test_in_export_nothing_is_read():
    lines = mistakes(['--adapters', 'a', '--max_pixels', '4'], 'merge-lora')
    assert any('--max_pixels has no effect in export' in line for line in lines)
