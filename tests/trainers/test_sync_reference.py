"""TR-DPO's callback by itself: its arithmetic, its rhythm, and its file in a checkpoint."""

from types import SimpleNamespace

import pytest
import torch

from swift.core.errors import CheckpointError
from swift.trainers.callbacks.sync_reference import FILE, SyncReferenceCallback
from tests.helpers.tiny import build_model


def models(dtype=torch.float32, **config):
    """(policy, reference): of one shape, with different weights."""
    return build_model(seed=0, **config).to(dtype), build_model(seed=1, **config).to(dtype)


def callback(policy, reference, steps=2, alpha=0.6):
    return SyncReferenceCallback(reference, lambda: iter(policy.named_parameters()), steps=steps, alpha=alpha)


def step(follow, number):
    follow.on_step_end(None, SimpleNamespace(global_step=number), None)


def numbers(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_every_second_step_six_tenths_of_the_policy():
    policy, reference = models()
    follow, before = callback(policy, reference), numbers(reference)
    step(follow, 1)
    assert all(torch.equal(value, before[name]) for name, value in numbers(reference).items())
    step(follow, 2)
    once = numbers(reference)
    for name, value in policy.named_parameters():
        assert (once[name] - (0.6 * value + 0.4 * before[name])).abs().max() < 1e-6
    step(follow, 3)
    step(follow, 4)
    for name, value in policy.named_parameters():
        assert (dict(reference.named_parameters())[name] - (0.84 * value + 0.16 * before[name])).abs().max() < 1e-6


def test_alpha_one_is_the_policy_and_the_reference_still_does_not_learn():
    policy, reference = models()
    reference.requires_grad_(False)
    places = {name: value.data_ptr() for name, value in reference.named_parameters()}
    step(callback(policy, reference, alpha=1.0), 2)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), reference.parameters(), strict=True))
    assert places == {name: value.data_ptr() for name, value in reference.named_parameters()}
    assert not any(value.requires_grad for value in reference.parameters())
    assert not {value.data_ptr() for value in policy.parameters()} & set(places.values())


def test_bfloat16_moves_in_float32():
    policy, reference = models(torch.bfloat16)
    before = numbers(reference)
    step(callback(policy, reference, alpha=0.3), 2)
    for name, value in policy.named_parameters():
        wanted = torch.lerp(before[name].float(), value.float(), 0.3).to(torch.bfloat16)
        assert torch.equal(dict(reference.named_parameters())[name], wanted)


def test_what_did_not_move_stays_to_the_bit():
    policy, _ = models()
    _, reference = models()
    reference.load_state_dict(policy.state_dict())
    step(callback(policy, reference, alpha=0.37), 2)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), reference.parameters(), strict=True))


def test_it_comes_back_from_a_checkpoint(tmp_path):
    policy, reference = models()
    follow = callback(policy, reference)
    step(follow, 2)
    follow.write_part(str(tmp_path))
    moved = numbers(reference)
    _, fresh = models()
    callback(policy, fresh).read_part(str(tmp_path))
    assert all(torch.equal(value, moved[name]) for name, value in numbers(fresh).items())


def test_a_checkpoint_without_it_or_of_another_model_is_refused(tmp_path):
    policy, reference = models()
    with pytest.raises(CheckpointError, match=f'without --sync_ref_model true: it has no {FILE}; .* --resume_only_model true'):
        callback(policy, reference).read_part(str(tmp_path))
    callback(policy, reference).write_part(str(tmp_path))
    other = callback(*models(hidden=32))
    with pytest.raises(CheckpointError, match='another reference than this run has; resume with the --ref_model of that run'):
        other.read_part(str(tmp_path))
