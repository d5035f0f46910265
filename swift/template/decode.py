"""Completions back to messages."""
from __future__ import annotations

from typing import Any


class Decoder:
    def __init__(self, tokenizer: Any, chat_template: str, stops: Any, facts: Any):
        self.tokenizer = tokenizer
    def __call__(self, completion):
        return {'role': 'assistant', 'content': completion.text}
