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
    opens an answer (default: what stands before an assistant's content). `media_first` puts the media of a message in
    front of its texts; `gap` stands between what is before a user's content and a text there, not a medium; with
    `system_in_user` a system message opens the user's turn. In a mark, `{n}` is the number of that medium so far.
    """
    roles = {role: style[role] for role in ('system', 'user', 'assistant')} | {'tool': style.get('tool', style['user'])}
    before_user = _literal(style['user'][0])
    if style.get('system_in_user'):
        before_user = "{% if not loop.previtem or loop.previtem['role'] != 'system' %}" + before_user + '{% endif %}'
    if gap := style.get('gap'):
        before_user += "{% if content is string or content[0]['type'] == 'text' %}" + _literal(gap) + '{% endif %}'
    turns = [
        f"{{% {'if' if role == 'system' else 'elif'} message['role'] == '{role}' %}}"
        + (before_user if role == 'user' else _literal(before))
        + _content(style.get('media_first', False))
        + _literal(after)
        for role, (before, after) in roles.items()
    ]
    return ''.join(
        [
            _literal(style.get('start', '')),
            '{% set seen = namespace(image=0, video=0, audio=0) %}',
            _shown(marks),
            "{% for message in messages %}{% set content = message['content'] %}",
            *turns,
            '{% endif %}{% endfor %}{% if add_generation_prompt %}',
            _literal(style.get('prompt', style['assistant'][0])),
            '{% endif %}',
        ]
    )


def _content(media_first: bool) -> str:
    """A message's content, a string or parts."""
    media = "{% for part in content if part['type'] != 'text' %}{{ shown(part) }}{% endfor %}"
    texts = "{% for part in content if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    parts = media + texts if media_first else '{% for part in content %}{{ shown(part) }}{% endfor %}'
    return '{% if content is string %}{{ content }}{% else %}' + parts + '{% endif %}'


def _shown(marks: dict[str, str]) -> str:
    """A macro: the text of a part, or the mark of its medium."""
    kinds = [kind for kind in ('image', 'video', 'audio') if kind in marks]
    cases = [f"{{% elif part['type'] == '{kind}' %}}{_mark(kind, marks[kind])}" for kind in kinds]
    text = "{% macro shown(part) %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    return text + ''.join(cases) + '{% endif %}{% endmacro %}'


def _mark(kind: str, mark: str) -> str:
    if '{n}' not in mark:
        return _literal(mark)
    before, after = mark.split('{n}')
    return f'{{% set seen.{kind} = seen.{kind} + 1 %}}' + _literal(before) + f'{{{{ seen.{kind} }}}}' + _literal(after)


def _literal(text: str) -> str:
    return '{{ ' + json.dumps(text, ensure_ascii=False) + ' }}' if text else ''
