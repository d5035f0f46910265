"""Facts about how model families write media, where their processors don't say it: `media.json`, by the class of the processor."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

_PROBE_SIZES = {'image': (224, 224), 'video': (4, 112, 112, 2.0, (0, 1, 2, 3), 4)}


@dataclass(frozen=True)
class MediaFacts:
    """One row of the table. Empty: the processor says everything."""

    facts: dict[str, Any] = field(default_factory=dict)

    def token(self, kind: str) -> str | None:
        """The placeholder in a text."""
        return self.facts.get('tokens', {}).get(kind)

    def written(self, kind: str) -> str | None:
        """The placeholder with the tokens that stand around it; `{token}` and `{processor.…}` are filled in."""
        return self.facts.get('written', {}).get(kind)

    def follows_labels(self, name: str) -> bool:
        """Whether an input of the model says which tokens are trained."""
        return name in self.facts.get('follows_labels', ())

    @property
    def asks(self) -> dict[str, bool]:
        """Outputs that the model wants and the processor gives only when it is asked."""
        return dict.fromkeys(self.facts.get('asks', ()), True)

    @property
    def one_kind(self) -> bool:
        """Whether a row shows images or videos, but not both."""
        return bool(self.facts.get('one_kind'))

    def probe_size(self, kind: str, rate: int) -> tuple:
        """A size of a medium that every model of the family takes."""
        return _PROBE_SIZES.get(kind, (rate,))


@lru_cache
def _types() -> dict[str, str]:
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    found: dict[str, str] = {}
    for model_type, name in PROCESSOR_MAPPING_NAMES.items():
        if isinstance(name, str):
            found.setdefault(name, model_type)
    return found


def model_type_of(processor: Any) -> str | None:
    """The model type that a processor was made for; None: transformers doesn't know it."""
    return next((_types()[cls.__name__] for cls in type(processor).__mro__ if cls.__name__ in _types()), None)


@lru_cache
def _table() -> dict[str, dict[str, Any]]:
    with open(os.path.join(os.path.dirname(__file__), 'media.json'), encoding='utf-8') as file:
        return json.load(file)


def media_facts(processor: Any) -> MediaFacts:
    """The facts about a processor; none for one that is not in the table."""
    names = [cls.__name__ for cls in type(processor).__mro__]
    return MediaFacts(next((_table()[name] for name in names if name in _table()), {}))
