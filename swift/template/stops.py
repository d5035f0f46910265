"""What ends an answer: the template's end-of-turn, the tokenizer's eos, the model's generation config."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift.template.probe import Facts
from swift.template.tokens import Tokens


@dataclass(frozen=True)
class Stops:
    """Settled once for a template and tokenizer."""

    ids: tuple[int, ...] = ()
    """Token ids after which generation ends."""
    strings: tuple[str, ...] = ()
    """End-of-turn strings that are no single token."""
    eos: int | None = None
    """The tokenizer's eos id."""
    closing: str = ''
    """Appended to a last turn that the template leaves open."""
    role: str = ''
    """The next role's token, where the model stops with it (and the template prints no end-of-turn)."""


def own_specials(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer itself puts before and after a text (bos, eos)."""
    if tokenizer is None:
        return [], []
    bare = list(tokenizer('a', add_special_tokens=False)['input_ids'])
    full = list(tokenizer('a', add_special_tokens=True)['input_ids'])
    for at in range(len(full) - len(bare) + 1):
        if full[at : at + len(bare)] == bare:
            return full[:at], full[at + len(bare) :]
    return [], []


def find_stops(
    tokenizer: Any, tokens: Tokens | None, facts: Facts | None, given: Iterable[int], words: Iterable[str] = ()
) -> Stops:
    """Stops of a template; `given` are ids the caller knows (generation_config.eos_token_id), `words` more strings."""
    if tokenizer is None or tokens is None:
        return Stops()
    eos = tokenizer.eos_token_id
    model = [*given, *_generation_eos(tokenizer)]
    ids = [i for i in [eos, *model] if i is not None]
    strings: list[str] = []
    role = ''
    for end in [*([facts.final_end, facts.call_end] if facts else []), *words]:
        found = tokens.ids(end.strip()) if end else []
        if len(found) == 1:
            ids.append(found[0])
        elif end:
            strings.append(end.strip())
    if facts is not None:
        next_role = tokens.ids(facts.next_role) if facts.next_role else []
        if len(next_role) == 1 and next_role[0] in model and not facts.final_end:
            role = facts.next_role
    return Stops(tuple(dict.fromkeys(ids)), tuple(dict.fromkeys(strings)), eos, tokenizer.eos_token or '', role)


def _generation_eos(tokenizer: Any) -> list[int]:
    """eos ids of the generation_config.json beside the tokenizer's files, if there is one."""
    path = Path(str(getattr(tokenizer, 'name_or_path', '') or '')) / 'generation_config.json'
    try:
        value = json.loads(path.read_text(encoding='utf-8')).get('eos_token_id')
    except (OSError, ValueError, AttributeError):
        return []
    return value if isinstance(value, list) else [] if value is None else [value]


def update_generation_config_eos_token(generation_config: Any, template: Any) -> None:
    """Add the template's stop tokens to `generation_config.eos_token_id`, so that generation ends where training does."""
    old = generation_config.eos_token_id
    ids = list(old) if isinstance(old, list | tuple) else [] if old is None else [old]
    new = list(dict.fromkeys([*ids, *template.stop_token_ids]))
    if new and new != ids:
        generation_config.eos_token_id = new
