"""Tokenizers and chat templates for tiny multimodal models: real shapes, made offline."""

from __future__ import annotations

import json
from typing import Any

from tests.helpers.tiny import _CORPUS


def build_tokenizer(
    named: dict[str, str], others: list[str], *, kind: str = 'bytes', bos: bool = False, size: int = 400
) -> Any:
    """A BPE tokenizer whose special tokens are `named` (attribute of the tokenizer → token) and `others`.

    `kind` is `bytes` (GPT-2, Qwen, Llama 3), `metaspace` (Gemma: spaces are ▁, unknown characters bytes) or `prefixed`
    (a ▁ in front of every text as well, and special tokens are looked for behind it). The
    names bos_token, eos_token, pad_token, unk_token are the usual four; any further name becomes an attribute such as
    `image_token`. With `bos`, encoding a text puts the bos token in front, as many checkpoints do.
    """
    from transformers import PreTrainedTokenizerFast

    specials = list(dict.fromkeys([*named.values(), *others]))
    backend = _trained(kind, specials, size)
    if bos:
        from tokenizers import processors

        start = named['bos_token']
        ids = [(start, backend.token_to_id(start))]
        backend.post_processor = processors.TemplateProcessing(
            single=f'{start} $A', pair=f'{start} $A {start}:1 $B:1', special_tokens=ids
        )
    usual = {
        name: token for name, token in named.items() if name in ('bos_token', 'eos_token', 'pad_token', 'unk_token')
    }
    extra = {name: token for name, token in named.items() if name not in usual}
    return PreTrainedTokenizerFast(tokenizer_object=backend, extra_special_tokens=extra, model_max_length=4096, **usual)


def _trained(kind: str, specials: list[str], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    bytes_ = [f'<0x{number:02X}>' for number in range(256)] if kind != 'bytes' else []
    settings: dict[str, Any] = dict(special_tokens=[*specials, *bytes_], show_progress=False)
    if bytes_:
        backend = Tokenizer(models.BPE(byte_fallback=True))
        spaces = normalizers.Replace(' ', '▁')
        backend.normalizer = spaces if kind == 'metaspace' else normalizers.Sequence([normalizers.Prepend('▁'), spaces])
        backend.pre_tokenizer = pre_tokenizers.Split('▁', 'merged_with_next')
        backend.decoder = decoders.Sequence([decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse()])
        alphabet = sorted(
            {letter for text in _CORPUS for letter in text.replace(' ', '▁') if letter.isascii() or letter == '▁'}
        )
        size += 256
    else:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size + len(specials), initial_alphabet=alphabet, **settings)
    backend.train_from_iterator([text for text in _CORPUS if kind == 'bytes' or text.isascii()] * 4, trainer)
    return _plain_bytes(backend, set(bytes_) - set(specials), kind == 'prefixed') if bytes_ else backend


def _plain_bytes(backend: Any, bytes_: set[str], normalized: bool) -> Any:
    """Byte tokens must be ordinary tokens of the vocabulary: as special ones they would match their own spelling."""
    from tokenizers import Tokenizer

    state = json.loads(backend.to_str())
    kept = [token for token in state['added_tokens'] if token['content'] not in bytes_]
    state['added_tokens'] = [token | dict(normalized=normalized) for token in kept]
    return Tokenizer.from_str(json.dumps(state))


def chat_template(style: dict[str, Any], marks: dict[str, str]) -> str:
    """A Jinja template from a style (see vlm_facts.json) and what stands for an image, a video, an audio.

    A style has a `start`, [before, after] for system, user, assistant (and `tool`, default user), and the `prompt` that
    opens an answer (default: what stands before an assistant's content). In a mark `{n}` is the number of that medium in
    the conversation. `media_first` in a style puts the media of a message in front of its texts.
    """
    roles = {role: style[role] for role in ('system', 'user', 'assistant')} | {'tool': style.get('tool', style['user'])}
    kinds = ('image', 'video', 'audio')
    shown = '{% macro shown(part) %}' + ''.join(
        f"{{% {'elif' if position else 'if'} part['type'] == '{kind}' %}}{_mark(kind, marks[kind])}"
        for position, kind in enumerate(kind for kind in kinds if kind in marks)
    )
    shown += '{% endif %}{% endmacro %}'
    media = "{% for part in content if part['type'] != 'text' %}{{ shown(part) }}{% endfor %}"
    texts = "{% for part in content if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    mixed = "{% for part in content %}{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ shown(part) }}{% endif %}{% endfor %}"
    counters = ', '.join(f'{kind}=0' for kind in kinds)
    body = [
        _literal(style.get('start', '')),
        f'{{% set seen = namespace({counters}) %}}' + shown,
        '{% for message in messages %}{% set content = message["content"] %}',
        *(
            _turn(role, before, after, first)
            for first, (role, (before, after)) in zip((1, 0, 0, 0), roles.items(), strict=True)
        ),
        '{% endif %}{% endfor %}',
        '{% if add_generation_prompt %}' + _literal(style.get('prompt', roles['assistant'][0])) + '{% endif %}',
    ]
    return ''.join(body).replace(
        '@content',
        '{% if content is string %}{{ content }}{% else %}'
        + (media + texts if style.get('media_first') else mixed)
        + '{% endif %}',
    )


def _turn(role: str, before: str, after: str, first: int) -> str:
    test = f"{{% {'if' if first else 'elif'} message['role'] == '{role}' %}}"
    return test + _literal(before) + '@content' + _literal(after)


def _mark(kind: str, mark: str) -> str:
    if '{n}' not in mark:
        return _literal(mark)
    before, after = mark.split('{n}')
    return f'{{% set seen.{kind} = seen.{kind} + 1 %}}' + _literal(before) + f'{{{{ seen.{kind} }}}}' + _literal(after)


def _literal(text: str) -> str:
    return '{{ ' + json.dumps(text, ensure_ascii=False) + ' }}' if text else ''
