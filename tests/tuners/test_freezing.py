"""Freezing the parts of a multimodal model: what learns, what gets a gradient, what is stored and merged."""

import pytest
import torch
from peft import PeftModel

from swift.arguments import TunerArgs
from swift.core.errors import CheckpointError, ModelError
from swift.tuners import load_adapter, merge, prepare_tuner, save_tuner
from swift.tuners.checkpointing import checkpoint_towers
from swift.tuners.merging import largest_difference, probe_of
from swift.tuners.parts import parts_of, unreached
from tests.tuners.multimodal import INFO, backward, llava, logits, qwen2_vl

MODELS = pytest.mark.parametrize('make', [llava, qwen2_vl])


def learning(model):
    """Parts in which something learns, and those that got a gradient."""
    parts = parts_of(model)
    learns = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return {parts.of(name) for name in learns}, {parts.of(name) for name, value in learns.items() if value.grad is not None}


def prepared(make, **settings):
    return prepare_tuner(make(), TunerArgs(**{'lora_dropout': 0.0, **settings}), info=INFO)


@MODELS
@pytest.mark.parametrize(
    'flags, parts',
    [
        ({}, {'llm'}),
        ({'freeze_llm': True, 'freeze_aligner': False}, {'aligner'}),
        ({'freeze_vit': False}, {'llm', 'vit'}),
        ({'freeze_vit': False, 'freeze_aligner': False}, {'llm', 'vit', 'aligner'}),
        ({'freeze_llm': True, 'freeze_vit': False, 'freeze_aligner': False}, {'vit', 'aligner'}),
    ],
)
@pytest.mark.parametrize('tuner', ['full', 'lora'])
def test_parts_that_learn_get_gradients_and_no_others(make, tuner, flags, parts):
    model = prepared(make, tuner_type=tuner, **flags)
    backward(model)
    assert learning(model) == (parts, parts)
    without = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert without == []  # processes in step wait for every gradient
    if tuner == 'full':
        bare = make()
        own, idle = parts_of(bare), unreached(bare)
        wanted = {name for name, _ in bare.named_parameters() if own.of(name) in parts and not name.startswith(idle or ('?',))}
        assert {name for name, value in model.named_parameters() if value.requires_grad} == wanted


@MODELS
def test_full_training_has_the_last_word_by_name(make):
    named = next(name for name, _ in make().named_parameters() if 'layers.0' in name or 'blocks.0' in name)
    model = prepared(make, tuner_type='full', freeze_llm=True, trainable_parameters=[named])
    assert [name for name, value in model.named_parameters() if value.requires_grad] == [named]
    with pytest.raises(ModelError, match='every parameter is frozen'):
        prepared(make, tuner_type='full', freeze_llm=True)


@MODELS
def test_adapters_of_all_parts_load_in_plain_peft_and_merge(make, tmp_path):
    model = prepared(make, freeze_vit=False, freeze_aligner=False, vit_lora_rank=4)
    ranks = {name.split('.lora_A')[0]: len(value) for name, value in model.named_parameters() if '.lora_A.' in name}
    parts = parts_of(model)
    assert {parts.of(name): rank for name, rank in ranks.items()} == {'llm': 8, 'aligner': 8, 'vit': 4}
    scales = {parts.of(name): layer.scaling['default'] for name, layer in model.named_modules() if hasattr(layer, 'lora_A')}
    assert scales == {'llm': 4.0, 'aligner': 4.0, 'vit': 8.0}
    assert not any('patch_embed' in name for name in ranks)  # convolutions stay as they are
    torch.manual_seed(3)
    for name, value in model.named_parameters():
        if 'lora_' in name:
            value.data.normal_(0, 0.1)
    save_tuner(model, tmp_path)
    wanted = logits(model)
    assert (wanted - logits(make())).abs().max() > 0.05
    assert (logits(PeftModel.from_pretrained(make(), tmp_path)) - wanted).abs().max() <= 1e-5
    merged, report = merge(load_adapter(make(), tmp_path))
    assert (logits(merged) - wanted).abs().max() <= 1e-5
    assert report.modules == sum(parts.of(name) != 'llm' for name in ranks) and report.modules_diff <= 1e-5
    assert 'modules beside the text' in str(report)
    assert largest_difference(merged, merged) == 0.0 and largest_difference(merged, make()) > 0.01


def test_a_wrong_merge_of_a_tower_is_noticed(monkeypatch):
    from swift.tuners import merging

    model = prepared(qwen2_vl, freeze_vit=False)
    for name, value in model.named_parameters():
        if 'lora_B' in name:
            value.data.normal_(0, 0.1)
    real = merging.fold

    def lossy(model):
        merged = real(model)
        merged.model.visual.blocks[1].attn.qkv.weight.data[0] += 0.1
        return merged

    monkeypatch.setattr(merging, 'fold', lossy)
    with pytest.raises(CheckpointError, match='the merged model is not the adapter it came from'):
        merge(model)


def test_an_aligner_that_is_trained_in_full_beside_adapters(tmp_path):
    model = prepared(llava, modules_to_save=['multi_modal_projector'])
    backward(model)
    assert learning(model) == ({'llm', 'aligner'}, {'llm', 'aligner'})
    for value in model.parameters():
        if value.requires_grad:
            value.data += 0.02
    save_tuner(model, tmp_path)
    wanted = logits(model)
    assert (logits(PeftModel.from_pretrained(llava(), tmp_path)) - wanted).abs().max() <= 1e-5
    merged, report = merge(load_adapter(llava(), tmp_path))
    assert (logits(merged) - wanted).abs().max() <= 1e-5 and report.modules == 1 and report.modules_diff == 0.0


def test_named_modules_are_adapted_wherever_they_are(caplog):
    names = {name for name, _ in prepared(llava, target_modules=['q_proj']).named_modules() if name.endswith('lora_A.default')}
    assert sum('vision_tower' in name for name in names) == 3 and len(names) == 5
    own = {name for name, _ in prepared(llava, target_modules=['llm.*.q_proj']).named_modules() if name.endswith('lora_A.default')}
    assert len(own) == 2 and not any('vision_tower' in name for name in own)


def test_a_rank_for_towers_without_adapters_is_refused():
    with pytest.raises(ModelError, match='--vit_lora_rank has no effect'):
        prepared(llava, vit_lora_rank=4)
    with pytest.raises(ModelError, match='leave no linear layer'):
        prepared(llava, freeze_llm=True)


@MODELS
def test_a_start_in_the_base_weights_with_two_ranks(make, tmp_path):
    model = prepared(make, freeze_vit=False, vit_lora_rank=2, init_weights='pissa')
    for name, value in model.named_parameters():
        if 'lora_B' in name:
            value.data += 0.05
    save_tuner(model, tmp_path)
    assert (logits(PeftModel.from_pretrained(make(), tmp_path)) - logits(model)).abs().max() <= 1e-4
    again = load_adapter(make(), tmp_path, trainable=True)
    assert (logits(again) - logits(model)).abs().max() <= 1e-4
    assert {len(value) for name, value in again.named_parameters() if '.lora_A.' in name} == {8, 2}


def test_the_probe_has_no_image():
    model = qwen2_vl()
    for token in (60, 61, 62, 63):
        assert (probe_of(model, rows=40) != token).all()


def switched(model):
    """Which parts recompute their activations."""
    parts = parts_of(model)
    return {parts.of(name) for name, module in model.named_modules() if getattr(module, 'gradient_checkpointing', False)}


@MODELS
@pytest.mark.parametrize(
    'frozen, whole, towers, wanted',
    [
        (False, True, None, {'llm', 'vit'}),
        (False, True, False, {'llm'}),
        (False, False, True, {'vit'}),
        (True, True, None, {'llm'}),
        (True, True, True, {'llm'}),
    ],
)
def test_checkpointing_of_towers(make, frozen, whole, towers, wanted):
    model = prepared(make, freeze_vit=frozen)
    backward(model)
    plain = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    if whole:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={'use_reentrant': False})
    seen = []
    tower = model.get_submodule('base_model.model.' + parts_of(model.get_base_model()).paths('vit')[0])
    tower.register_forward_hook(lambda module, args, output: seen.append(next(iter(output.values())).requires_grad))
    checkpoint_towers(model, whole, towers)
    assert switched(model) == wanted
    backward(model)
    assert all(torch.allclose(value.grad, plain[name], atol=1e-6) for name, value in model.named_parameters() if value.grad is not None)
    assert seen[0] is not frozen  # no backward pass through a frozen tower
