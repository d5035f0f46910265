"""Conversations that show noise, and the tiny models that look at it."""

from __future__ import annotations

from functools import cache
from typing import Any

from swift.core.media import bind
from swift.core.types import Conversation
from tests.helpers.vlm import media_of, save_vlm
from tests.helpers.vlm_media import save_medium

_ROOT: dict[str, Any] = {}


def root(factory: Any) -> Any:
    """The folder of this session's models and media."""
    return _ROOT.setdefault('root', factory.mktemp('shown'))


@cache
def model_dir(family: str) -> str:
    """The directory of the tiny model of a family, made once a session. Read only."""
    return save_vlm(_ROOT['root'] / family, family)


@cache
def file_of(kind: str, seed: int) -> str:
    """A file of noise."""
    return save_medium(str(_ROOT['root'] / f'{kind}{seed}'), kind, seed)


@cache
def template_of(family: str, **settings: Any) -> Any:
    """The template of a family's processor, with settings of TemplateArgs."""
    from transformers import AutoProcessor

    from swift.template import get_template

    if family == 'paligemma':
        settings = {'template': 'paligemma', **settings}
    return get_template(AutoProcessor.from_pretrained(model_dir(family)), **settings)


def talk(*said: str, **media: Any) -> Conversation:
    """A conversation of user and assistant in turns. `images=[seed, …]`, `videos`, `audios`: numbers of files of noise."""
    roles = ('user', 'assistant')
    messages = [{'role': roles[i % 2], 'content': text} for i, text in enumerate(said)]
    files = {name: [file_of(name[:-1], seed) for seed in seeds] for name, seeds in media.items()}
    bound = bind(messages, **files)
    return Conversation(bound, **files, source='rows.jsonl:1')


def kinds_of(family: str) -> list[str]:
    """Kinds of media that the family takes."""
    return media_of(family)
