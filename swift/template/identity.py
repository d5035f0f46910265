"""What decides the tokens of a conversation, as one short text: names cached tokens, and is written into checkpoints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any


def fingerprint(tokenizer: Any, sources: dict[str, Any], variables: Any, args: Any, stops: Any) -> str:
    """A hash of the vocabulary, the chat template and every setting. Equal ones give equal tokens and labels."""
    import swift

    digest = hashlib.blake2b(digest_size=16)
    settings = {field.name: getattr(args, field.name) for field in dataclasses.fields(args)}
    for part in (swift.__version__, sources, variables or {}, settings, dataclasses.asdict(stops)):
        digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    digest.update(_vocabulary(tokenizer))
    return digest.hexdigest()


def _vocabulary(tokenizer: Any) -> bytes:
    """The whole fast tokenizer (merges, normaliser, added tokens), or what a slow one says of itself."""
    if tokenizer is None:
        return b''
    backend = getattr(tokenizer, 'backend_tokenizer', None)
    if backend is not None:
        return backend.to_str().encode()
    facts = [
        type(tokenizer).__name__,
        sorted(tokenizer.get_vocab().items()),
        str(tokenizer.special_tokens_map),
        str(tokenizer.init_kwargs),
    ]
    return json.dumps(facts, default=str).encode()
