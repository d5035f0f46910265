"""The Python names of ms-swift: Swift, LoRAConfig, Tuner, helpers."""

import pytest
import torch
from torch import nn

from swift.arguments.tuner import TunerArgs
from swift.core.errors import CheckpointError, ModelError
from swift.tuners import (
    LoRAConfig,
    Swift,
    Tuner,
    find_all_linears,
    find_embedding,
    find_norm,
    get_multimodal_target_regex,
    load_adapter,
    prepare_tuner,
    save_tuner,
    tuners_map,
)
from swift.tuners.modules import as_regex
from swift.tuners.parts import part_of
from tests.helpers.tiny import build_model
from tests.tuners.test_lora import logits, steps


def test_lora_config_understands_the_short_names():
    import peft

    config = LoRAConfig(r=256, alpha=16, target_modules=['q_proj'], dropout=0.5)
    assert isinstance(config, peft.LoraConfig)
    assert (config.r, config.lora_alpha, config.lora_dropout, config.target_modules) == (256, 16, 0.5, {'q_proj'})
    assert (LoRAConfig().r, LoRAConfig().lora_alpha, LoRAConfig().lora_dropout) == (8, 32, 0.05)
    with pytest.raises(ModelError, match='contradict'):
        LoRAConfig(alpha=16, lora_alpha=32)


def test_swift_prepares_saves_loads_and_merges(tmp_path):
    config = LoRAConfig(r=4, lora_alpha=8, target_modules='all-linear', lora_dropout=0.0, use_rslora=True)
    model = Swift.prepare_model(build_model(), config)
    assert config.target_modules == 'all-linear'  # the caller's object is not touched
    assert len([name for name, m in model.named_modules() if hasattr(m, 'lora_A')]) == 14
    steps(model)
    model.save_pretrained(tmp_path)
    again = Swift.from_pretrained(build_model(), str(tmp_path))
    assert torch.equal(logits(again), logits(model))
    assert Swift.from_pretrained(build_model(), {'mine': str(tmp_path)}).active_adapter == 'mine'
    merged = Swift.merge_and_unload(again)
    assert (logits(merged) - logits(model)).abs().max() < 1e-5


class Head(Tuner):
    """Trains the last norm only."""

    def __init__(self, model, config):
        super().__init__(model, config)
        model.requires_grad_(False)
        model.model.norm.weight.requires_grad_(True)


@pytest.fixture
def registered():
    tuners_map['head'] = Head
    yield
    del tuners_map['head']


def test_a_tuner_of_ones_own(registered, tmp_path):
    model = prepare_tuner(build_model(), TunerArgs(tuner_type='head'))
    assert isinstance(model, Head) and model.config.model_type == 'qwen3'
    steps(model, lr=0.1)
    save_tuner(model, tmp_path)
    again = load_adapter(build_model(), [str(tmp_path)])
    assert isinstance(again, Head) and torch.equal(logits(again), logits(model))
    assert not torch.equal(logits(again), logits(build_model()))


def test_a_tuner_that_is_not_registered(registered, tmp_path):
    save_tuner(prepare_tuner(build_model(), TunerArgs(tuner_type='head')), tmp_path)
    tuners_map.replace('head', 'swift.tuners.full:Full')
    with pytest.raises(CheckpointError, match="tuner 'Head', which is not registered"):
        load_adapter(build_model(), [str(tmp_path)])


def test_finders():
    model = build_model()
    assert len(find_all_linears(model)) == 14 and 'lm_head' not in find_all_linears(model)
    assert find_embedding(model) == ['model.embed_tokens']
    assert len(find_norm(model)) == 2 * 4 + 1


def test_only_plain_linears_are_adapted():
    class Odd(nn.Linear):
        def forward(self, x):
            return super().forward(x).softmax(-1)

    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1d = nn.Conv1d(4, 4, 3)
            self.in_proj, self.out_proj, self.dt_proj = (nn.Linear(4, 4) for _ in range(3))

    model = nn.Module()
    model.odd, model.mixer, model.attention = Odd(4, 4), Mixer(), nn.Module()
    model.attention.out_proj, model.gate, model.router = (nn.Linear(4, 4) for _ in range(3))
    assert find_all_linears(model) == ['mixer.in_proj', 'attention.out_proj']


def test_parts_of_a_multimodal_model():
    names = {
        'model.language_model.layers.0.mlp.up_proj': 'llm',
        'model.visual.blocks.0.attn.qkv': 'vit',
        'model.visual.merger.mlp.0': 'aligner',
        'model.multi_modal_projector.linear_1': 'aligner',
        'vision_tower.vision_model.encoder.layers.0.mlp.fc1': 'vit',
        'model.layers.0.mlp.up_proj': 'llm',
    }
    assert {name: part_of(name) for name in names} == names


def test_multimodal_target_regex():
    import re

    model = nn.Module()
    model.visual, model.language_model = nn.Module(), nn.Module()
    model.visual.qkv, model.visual.merger = nn.Linear(2, 2), nn.Linear(2, 2)
    model.language_model.layers = nn.ModuleList([nn.ModuleDict({'q_proj': nn.Linear(2, 2)}) for _ in range(3)])

    def chosen(**flags):
        pattern = re.compile(get_multimodal_target_regex(model, **flags))
        return [name for name, _ in model.named_modules() if pattern.fullmatch(name)]

    assert chosen() == [f'language_model.layers.{i}.q_proj' for i in range(3)]
    assert chosen(freeze_llm=True, freeze_vit=False) == ['visual.qkv']
    assert chosen(freeze_llm=True, freeze_aligner=False) == ['visual.merger']
    with pytest.raises(ModelError, match='leave no linear layer'):
        get_multimodal_target_regex(model, freeze_llm=True)


def test_regex_matches_exactly_what_it_was_made_from():
    import re

    names = ['a.0.q', 'a.1.q', 'a.10.q', 'a.0.b.1.k', 'a.2.b.3.k', 'plain.x']
    pattern = re.compile(as_regex(names))
    every = [*names, 'a.3.q', 'a.0.b.3.k', 'a.2.b.1.k', 'aa0.q', 'plainxx']
    assert [name for name in every if pattern.fullmatch(name)] == names
