"""The memory estimate against what autograd really saves."""

import pytest

from swift.pipelines.estimate import estimate_memory, human
from tests.helpers.tiny import build_model


def saved_bytes(model, tokens: int) -> int:
    """Bytes of distinct activations that one forward keeps for backward (parameters excluded)."""
    import torch

    storages = {}
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in parameters:
            storages[pointer] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model.model(input_ids=torch.arange(tokens)[None] % 500, use_cache=False)
        assert output.last_hidden_state.shape[1] == tokens
    return sum(storages.values())


@pytest.mark.parametrize('hidden, layers', [(64, 2), (128, 4)])
def test_activations_within_a_third_full(hidden, layers):
    model = build_model(hidden=hidden, layers=layers, head_dim=hidden // 4)
    model.train()
    tokens = 256
    measured = saved_bytes(model, tokens)
    parameters = model.num_parameters()
    estimate = estimate_memory(model.config, parameters=parameters, trainable=parameters, tokens=tokens)
    assert estimate.activations == pytest.approx(measured, rel=0.34)


def test_activations_within_a_third_lora():
    from peft import LoraConfig, get_peft_model

    model = build_model(hidden=128, layers=3, head_dim=32)
    tokens = 256
    wrapped = get_peft_model(model, LoraConfig(r=8, target_modules='all-linear', lora_dropout=0.05))
    wrapped.train()
    measured = saved_bytes(wrapped.base_model.model, tokens)
    trainable, parameters = wrapped.get_nb_trainable_parameters()
    estimate = estimate_memory(model.config, parameters=parameters, trainable=trainable, tokens=tokens, lora_rank=8)
    assert estimate.activations == pytest.approx(measured, rel=0.34)


def test_parts_follow_the_choices():
    config = build_model().config
    base = dict(parameters=1000, trainable=1000, tokens=100)
    full = estimate_memory(config, **base)
    assert (full.weights, full.gradients, full.optimizer) == (4000, 4000, 8000)
    assert estimate_memory(config, **base, optim='sgd').optimizer == 0
    assert estimate_memory(config, **base, gradient_checkpointing=True).activations < full.activations
    half = estimate_memory(config, parameters=1000, trainable=100, tokens=100, dtype='bfloat16', lora_rank=8)
    assert half.weights == 900 * 2 + 100 * 4
    assert full.total == sum((full.weights, full.gradients, full.optimizer, full.activations, full.logits))


def test_logits_are_bounded_by_the_chunk():
    config = build_model().config
    small = estimate_memory(config, parameters=1, trainable=1, tokens=10, labelled_tokens=4)
    assert small.logits == 4 * config.vocab_size * 12
    huge = estimate_memory(config, parameters=1, trainable=1, tokens=10**9)
    assert huge.logits == 64 * 2**20 * 12


def test_human():
    assert human(10) == '10 B' and human(1536) == '1.5 KiB' and human(3 * 2**40) == '3072.0 GiB'
