"""A base model, and adapters trained on nothing in particular."""

import pytest
import torch

from tests.helpers.tiny import build_model, build_tokenizer


def make_adapter(base, path, seed, **config):
    """Write a random adapter of the model in `base` to `path`."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = {'r': 4, 'lora_alpha': 8, 'target_modules': ['q_proj', 'v_proj', 'down_proj'], **config}
    peft = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraConfig(**settings))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in peft.named_parameters():
            if 'lora_' in name:
                weight.normal_(0, 0.2)
    peft.save_pretrained(path)
    return str(path)


@pytest.fixture(scope='session')
def adapter(tiny_dir, tmp_path_factory):
    return make_adapter(tiny_dir, tmp_path_factory.mktemp('run') / 'checkpoint-5', 1)


@pytest.fixture(scope='session')
def second_adapter(tiny_dir, tmp_path_factory):
    return make_adapter(tiny_dir, tmp_path_factory.mktemp('run') / 'checkpoint-6', 2, target_modules=['k_proj', 'up_proj'])


@pytest.fixture(scope='session')
def half_dir(tmp_path_factory):
    """The tiny model stored in bfloat16."""
    path = tmp_path_factory.mktemp('half') / 'model'
    build_model().to(torch.bfloat16).save_pretrained(path)
    build_tokenizer().save_pretrained(path)
    return str(path)
