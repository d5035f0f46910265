"""Every causal architecture of the installed transformers, tiny and random, through LoRA and back."""

import importlib.util

import pytest

from tests.helpers.architectures import FACTS, model_types, trip

QUICK = ('qwen3', 'llama', 'gpt2', 'falcon', 'mamba', 'falcon_h1', 'llama4_text', 'phimoe', 'gemma3', 'laguna')
"""A plain one, transposed weights, a subclass of Linear, state spaces, experts, a multimodal one, renamed keys."""

NOT_POSSIBLE = {
    'gemma4_assistant': 'drafts from the caches of another model; has no forward of its own on tokens',
    'gemma4_unified_assistant': 'drafts from the caches of another model; has no forward of its own on tokens',
    'musicgen': 'the mapping names a configuration that its causal class does not take',
    'musicgen_melody': 'the mapping names a configuration that its causal class does not take',
}
if importlib.util.find_spec('timm') is None:
    NOT_POSSIBLE['gemma3n'] = 'needs the package timm'


def check(model_type, folder):
    result = trip(model_type, str(folder))
    assert result['adapters'] > 0 and result['effect'] > 1e-5
    assert result['base_changed'] == []


@pytest.mark.parametrize('model_type', QUICK)
def test_a_handful(model_type, tmp_path):
    check(model_type, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('model_type', [name for name in model_types() if name not in QUICK])
def test_every_other(model_type, tmp_path):
    if model_type in NOT_POSSIBLE:
        pytest.skip(NOT_POSSIBLE[model_type])
    check(model_type, tmp_path)


def test_facts_name_known_architectures():
    assert set(FACTS) <= set(model_types())
