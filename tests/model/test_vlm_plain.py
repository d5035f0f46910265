"""The tiny multimodal models work in plain transformers: what is tried on them elsewhere tests us, not them."""

from __future__ import annotations

import pytest

from tests.helpers.vlm import FAMILIES, PRIORITY, check_family, family_facts, media_of, save_vlm

pytestmark = pytest.mark.filterwarnings('ignore')


REST = [family for family in FAMILIES if family not in PRIORITY and 'reason' not in family_facts(family)]


@pytest.mark.parametrize('family', [*PRIORITY, *(pytest.param(family, marks=pytest.mark.slow) for family in REST)])
def test_every_kind_of_row(family, tmp_path):
    """Loss, change with the medium, gradients and generation; what is known to fail fails."""
    for package in family_facts(family).get('needs', []):
        pytest.importorskip(package)
    found = check_family(family, str(tmp_path / 'model'))
    failed = {rows: result['error'] for rows, result in found.items() if not result['ok']}
    assert failed.keys() == family_facts(family).get('fails', {}).keys(), failed
    for kind in media_of(family):
        if kind not in failed:
            assert found[kind]['change'] > 1e-6
            assert found[kind]['moved'] > 0 or family_facts(family).get('discrete')
        if f'{kind}_batch' not in failed:
            assert [len(row) for row in found[f'{kind}_batch']['generated']] == [4, 4]


def test_the_same_seed_is_the_same_model(tmp_path):
    from safetensors.torch import load_file

    files = [
        load_file(f'{save_vlm(tmp_path / name, "llava", seed=seed)}/model.safetensors')
        for name, seed in (('a', 1), ('b', 1), ('c', 2))
    ]
    first, same, other = files
    assert all(first[name].equal(same[name]) for name in first)
    assert [name for name in first if 'patch_embedding' in name and not first[name].equal(other[name])]


def test_overrides_are_laid_over_the_facts(tmp_path):
    from transformers import AutoConfig

    path = save_vlm(
        tmp_path / 'model',
        'qwen2_vl',
        config=dict(text_config=dict(num_hidden_layers=3)),
        image_processor=dict(size=dict(longest_edge=784)),
    )
    config = AutoConfig.from_pretrained(path)
    assert config.text_config.num_hidden_layers == 3
    assert config.vision_config.depth == 2
    assert config.text_config.vocab_size < 700
