"""Full training: what is frozen, and that the files are a plain transformers model."""

import json
import os
import shutil

import pytest
import torch

from swift.arguments.model import ModelArgs
from swift.arguments.tuner import TunerArgs
from swift.core.errors import CheckpointError, ModelError
from swift.model import load_model
from swift.tuners import (
    activate_parameters,
    coverage,
    freeze_parameters,
    get_model_parameter_info,
    load_adapter,
    prepare_tuner,
    save_tuner,
)
from tests.helpers.tiny import build_model
from tests.tuners.test_lora import logits, steps


def trainable(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def prepare(**settings):
    return prepare_tuner(build_model(), TunerArgs(tuner_type='full', **settings))


def test_everything_is_trained_by_default():
    model = prepare()
    assert trainable(model) == {name for name, _ in model.named_parameters()}
    assert coverage(model).share == 1.0 and coverage(model).missed == ()


def test_freezing_by_name_regex_and_ratio():
    assert not any(name.startswith('model.layers.0') for name in trainable(prepare(freeze_parameters=['model.layers.0'])))
    assert all('mlp' in name for name in trainable(prepare(freeze_parameters_regex=r'embed|norm|self_attn')))
    # 115,072 weights: the embedding has 40,960 (35.6 %), the first layer brings it to 77,984 (67.8 %)
    assert 'model.embed_tokens.weight' in trainable(prepare(freeze_parameters_ratio=0.35))
    frozen = {name for name, _ in build_model().named_parameters()} - trainable(prepare(freeze_parameters_ratio=0.68))
    assert {name.split('.')[1] + name.split('.')[2] for name in frozen} == {'embed_tokensweight', 'layers0'}


def test_trainable_has_the_last_word():
    kept = trainable(prepare(freeze_parameters_ratio=1.0, trainable_parameters=['model.norm'], trainable_parameters_regex='q_norm'))
    assert kept == {'model.norm.weight', 'model.layers.0.self_attn.q_norm.weight', 'model.layers.1.self_attn.q_norm.weight'}


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(freeze_parameters=['modle.layers']), '--freeze_parameters: no parameter matches .modle.layers.; names look like'),
        (dict(trainable_parameters_regex='nothing'), 'no parameter matches the expression'),
        (dict(freeze_parameters_regex='(('), 'is not a regular expression'),
        (dict(freeze_parameters_ratio=1.5), 'must be between 0 and 1'),
        (dict(freeze_parameters_ratio=1.0), 'every parameter is frozen'),
    ],
)
def test_mistakes_are_named(settings, words):
    with pytest.raises(ModelError, match=words):
        prepare(**settings)


def test_frozen_weights_stay_and_others_move():
    model = prepare(freeze_parameters=['model.layers.0'])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps(model)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert 'model.layers.1.mlp.up_proj.weight' in moved and not any('layers.0' in name for name in moved)


def test_float16_weights_are_trained_as_float32():
    model = prepare_tuner(build_model().half(), TunerArgs(tuner_type='full'))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert prepare_tuner(build_model().bfloat16(), TunerArgs(tuner_type='full')).dtype == torch.bfloat16


def test_saved_models_are_plain_transformers_models(tiny_dir, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = load_model(ModelArgs(model=tiny_dir))
    model = prepare_tuner(loaded.model, TunerArgs(tuner_type='full'), info=loaded.info)
    steps(model)
    save_tuner(model, tmp_path, processor=loaded.processor)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == loaded.tokenizer.chat_template
    assert torch.equal(logits(load_model(ModelArgs(model=str(tmp_path))).model), logits(model))


def test_stored_type_may_differ_from_the_computed_one(tmp_path):
    from safetensors.torch import load_file

    model = build_model()
    save_tuner(model, tmp_path, dtype=torch.bfloat16)
    stored = load_file(tmp_path / 'model.safetensors')
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert json.load(open(tmp_path / 'config.json'))['dtype'] == 'bfloat16'
    assert torch.equal(stored['model.layers.0.mlp.up_proj.weight'], model.model.layers[0].mlp.up_proj.weight.bfloat16())
    assert model.dtype == torch.float32


def test_the_generation_config_is_kept_to_the_letter(tiny_dir, tmp_path):
    """A temperature with do_sample false is refused by transformers on saving; it is the user's, so it is kept."""
    home = shutil.copytree(tiny_dir, tmp_path / 'base')
    text = json.dumps({'do_sample': False, 'temperature': 0.6, 'top_p': 0.95, 'eos_token_id': [2, 0], 'note': 'mine'}, indent=1)
    (home / 'generation_config.json').write_text(text)
    loaded = load_model(ModelArgs(model=str(home)))
    save_tuner(loaded.model, tmp_path / 'out')
    assert (tmp_path / 'out' / 'generation_config.json').read_text() == text
    assert loaded.model.generation_config.temperature == 0.6 and loaded.model.generation_config.eos_token_id == [2, 0]


def test_a_whole_model_is_no_adapter(tiny_dir):
    with pytest.raises(CheckpointError, match='holds no adapter'):
        load_adapter(build_model(), tiny_dir)


def test_parameter_info_and_helpers():
    model = build_model().requires_grad_(False)
    assert activate_parameters(model, ['model.norm']) == 1
    assert get_model_parameter_info(model).startswith('Qwen3ForCausalLM: 0.1151M Params (0.0001M Trainable [0.0556%])')
    model.requires_grad_(True)
    assert freeze_parameters(model, 0.0, ['model.embed_tokens']) == 1 and not model.model.embed_tokens.weight.requires_grad


def test_saved_files(tmp_path):
    save_tuner(build_model(), tmp_path)
    assert {'config.json', 'model.safetensors', 'generation_config.json'} == set(os.listdir(tmp_path))
