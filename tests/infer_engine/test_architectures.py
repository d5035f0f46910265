"""Any causal architecture answers as its own plain forward says, whichever way of batching it gets."""

import pytest
import torch

from swift.core.types import Prompt
from swift.infer_engine import RequestConfig, TransformersEngine
from tests.helpers.architectures import build, model_types, quiet

SLOTS = ['llama', 'gpt2', 'gemma2', 'gemma3_text', 'mistral', 'gpt_oss', 'qwen3_moe', 'phi3', 'cohere2', 'olmo2']
STATIC = ['falcon', 'bloom', 'deepseek_v3', 'llama4_text', 'mamba2', 'qwen3_next', 'bart']
OTHER = {
    'blt', 'gemma3n', 'gemma4_assistant', 'gemma4_unified_assistant', 'musicgen', 'musicgen_melody', 'xlstm',  # not built or run alone
    'axk2', 'bert', 'bert-generation', 'big_bird', 'camembert', 'cpmant', 'data2vec-text', 'deepseek_v32', 'deepseek_v4',
    'dots3_note', 'dots3_note_text', 'electra', 'ernie', 'glm_moe_dsa', 'hy_v4', 'megatron-bert', 'moshi', 'prophetnet', 'rembert', 'roberta',
    'roberta-prelayernorm', 'roc_bert', 'roformer', 'rwkv', 'xlm', 'xlm-roberta', 'xlm-roberta-xl', 'xlnet', 'xmod',  # generate ≠ forward
}  # fmt: skip
"""Architectures whose forward without a cache and whose own `generate` differ, or that this test can't build."""


class Ids:
    """Prompts are made of ids here; there is no text."""

    class tokenizer:
        all_special_ids: list[int] = []
        decode = staticmethod(lambda ids, **_: '')
        get_added_vocab = staticmethod(dict)


def answers_rightly(name: str, folder) -> str:
    """Check one architecture with prompts shorter and longer than its windows; returns the way of batching."""
    quiet()
    torch.manual_seed(0)
    model = build(name, str(folder)).eval().float()
    prompts = [[(7 * i + 3 + k * 31) % 600 + 10 for i in range(length)] for k, length in enumerate((6, 11, 25, 40, 25))]
    engine = TransformersEngine(model, template=Ids(), max_batch_size=4, max_model_len=200)
    config = RequestConfig(max_tokens=8, temperature=0, ignore_eos=True, logprobs=True)
    for prompt, (answer,) in zip(
        prompts, engine.generate([Prompt(p) for p in prompts], [config] * 5, [None] * 5), strict=True
    ):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + answer.token_ids]), use_cache=False).logits[0].float()
        places = range(len(prompt) - 1, len(prompt) + 7)
        for place, token, entry in zip(places, answer.token_ids, answer.logprobs, strict=True):
            assert logits[place, token] >= logits[place].max() - 1e-4
            assert entry['logprob'] == pytest.approx(torch.log_softmax(logits[place], -1)[token].item(), abs=1e-4)
    return engine._way[0]


@pytest.mark.parametrize('name', SLOTS + STATIC)
def test_answers_are_the_plain_forwards(name, tmp_path):
    assert answers_rightly(name, tmp_path) == ('slots' if name in SLOTS else 'static')


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in model_types() if name not in OTHER])
def test_every_architecture(name, tmp_path):
    answers_rightly(name, tmp_path)
