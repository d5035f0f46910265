"""A small engine and the plainest template there can be, so that these tests know every token."""

import pytest
import torch

from swift.core.types import Completion, Conversation, Prompt
from swift.infer_engine import TransformersEngine
from tests.helpers.tiny import build_model


class PlainTemplate:
    """ChatML prompts by the tokenizer's own template; the answer is the text."""

    max_length = None

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def prompt(self, conversation: Conversation) -> Prompt:
        text = self.tokenizer.apply_chat_template(conversation.messages, tokenize=False, add_generation_prompt=True)
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return Prompt(ids, text, [self.tokenizer.eos_token_id])

    def decode(self, completion: Completion) -> dict:
        return {'role': 'assistant', 'content': completion.text}


@pytest.fixture(scope='session')
def template(tokenizer):
    return PlainTemplate(tokenizer)


@pytest.fixture(scope='session')
def model(tokenizer):
    """Random, with weights large enough that its answers differ from prompt to prompt, mostly of whole characters."""
    model = build_model(layers=2, hidden=64, seed=3).eval()
    broken = [i for i in range(640) if not tokenizer.decode([i]).isascii() or not tokenizer.decode([i])]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.mul_(4 if 'embed' not in name else 1.5)
        model.model.embed_tokens.weight[broken] *= 0.05
    return model


@pytest.fixture(scope='session')
def engine(model, template):
    return TransformersEngine(model, template=template, max_batch_size=5)
