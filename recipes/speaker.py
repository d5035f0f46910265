"""What the tiny multimodal models have in common: tiny-chat as their language model, with tokens for media behind its vocabulary.

A model made here sees or hears through a random tower, but already speaks: the words, the chat format and the weights of the
language model are those of the model that comes with the package.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

TINY_CHAT = Path(__file__).resolve().parents[1] / 'swift' / 'model' / 'tiny_chat'
SAID = """\
{%%- macro said(content) -%%}
    {%%- if content is string -%%}{{- content -}}{%%- endif -%%}
    {%%- for part in content if content is not string -%%}
        {%%- if part.type == 'text' -%%}{{- part.text -}}
%s        {%%- endif -%%}
    {%%- endfor -%%}
{%%- endmacro -%%}
"""
PLACES = {
    'set say.system = messages[0].content ': 'set say.system = said(messages[0].content) ',
    "set content = message.content if message.content is string else '' ": "set content = said(message.content or '') ",
}
"""Where tiny-chat's template takes a content for a string → the same, for a list of parts too."""


def load_tokenizer(tokens: Sequence[str], marks: dict[str, str]):
    """tiny-chat's tokenizer with `tokens` behind its own, and a chat template that writes `marks[kind]` for a part of that kind."""
    from transformers import AddedToken, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY_CHAT)
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in tokens], special_tokens=True)
    tokenizer.chat_template = with_parts(tokenizer.chat_template, marks)
    return tokenizer


def with_parts(template: str, marks: dict[str, str]) -> str:
    """A chat template as tiny-chat has it, made to read lists of content parts."""
    for old, new in PLACES.items():
        if old not in template:
            raise SystemExit(f'the chat template of {TINY_CHAT} has no "{old.strip()}"; adapt PLACES in {__file__}')
        template = template.replace(old, new)
    cases = ''.join(
        f"        {{%- elif part.type == '{kind}' -%}}{{{{- {json.dumps(mark)} -}}}}\n" for kind, mark in marks.items()
    )
    return SAID % cases + template


def text_config(tokenizer, tied: bool = True):
    """tiny-chat's configuration with a row for every token of the tokenizer; `tied`: the head shares the rows."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(TINY_CHAT)
    config.vocab_size = len(tokenizer)
    config.tie_word_embeddings = tied
    config.dtype = None
    return config


def teach_speech(model) -> None:
    """Put tiny-chat's weights into the language model of a model with a random one, in place; rows of new tokens keep theirs."""
    import torch
    from transformers import AutoModelForCausalLM

    speaker = AutoModelForCausalLM.from_pretrained(TINY_CHAT, dtype=torch.float32)
    weights = speaker.model.state_dict()
    name = 'embed_tokens.weight'
    rows = model.get_input_embeddings().weight.detach().clone()
    rows[: len(weights[name])] = weights[name]
    model.get_decoder().load_state_dict({**weights, name: rows})
    if not getattr(model.config, 'tie_word_embeddings', False):
        model.get_output_embeddings().weight.data.copy_(rows)
    model.generation_config = speaker.generation_config


def write(model, processor, folder: Path) -> None:
    """Save a model directory, and say what is in it."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    print(f'{folder}: {type(model).__name__}, {model.num_parameters():,} parameters')
