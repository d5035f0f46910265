"""A model that other engines load: its folder, its template and its generation config, without its weights."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from swift.core.errors import MissingDependencyError, SwiftError
from swift.core.types import Prompt, Template
from swift.infer_engine.loading import check_adapter, ids_of
from swift.infer_engine.protocol import RequestConfig
from swift.infer_engine.sampling import settled

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks that vLLM can be started for."""


@dataclass
class RemoteModel:
    """What our side of the wire knows about a model."""

    directory: str
    name: str
    template: Template
    generation_config: Any
    max_model_len: int | None
    adapters: list[str] = field(default_factory=list)
    """Directories of adapters that belong to the name that was given."""

    @classmethod
    def find(cls, model: str, adapters: Sequence[str] | str | None, template: Template | None) -> RemoteModel:
        """The model of an id or directory (a run or checkpoint too); its own template unless one is given."""
        from swift.arguments import ModelArgs
        from swift.model.load import load_processor, model_info
        from swift.template import get_template

        args = ModelArgs(model=model, adapters=[adapters] if isinstance(adapters, str) else list(adapters or []))
        info = model_info(args)
        generation = generation_of(info.model_dir)
        template = template or get_template(load_processor(args), stop_token_ids=ids_of(generation.eos_token_id))
        for path in info.adapters:
            check_adapter(path)
        name = os.path.basename(os.path.normpath(info.model_dir))
        return cls(info.model_dir, name, template, generation, info.max_model_len, list(info.adapters))


def generation_of(directory: str) -> Any:
    """The generation config of a model's folder."""
    from transformers import GenerationConfig

    stored = os.path.isfile(os.path.join(directory, 'generation_config.json'))
    return GenerationConfig.from_pretrained(directory) if stored else GenerationConfig()


def needed_rank(adapters: Sequence[str], asked: int | None) -> int:
    """The largest rank an engine must be ready for."""
    ranks = [asked or 16]
    for path in adapters:
        with open(os.path.join(path, 'adapter_config.json'), encoding='utf-8') as file:
            ranks.append(int(json.load(file).get('r', 8)))
    wanted = max(ranks)
    return next((rank for rank in RANKS if rank >= wanted), wanted)


def python_for(package: str, python: str | None) -> str:
    """The interpreter that has the package: the one given, else ours. Raises MissingDependencyError."""
    import sys

    if python:
        return os.path.expanduser(python)
    if find_spec(package) is None:
        raise missing(package)
    return sys.executable


def missing(package: str) -> MissingDependencyError:
    """What is said where an engine is not installed."""
    return MissingDependencyError(package, f'the engine {package} (without --engine_python, which names the Python of another environment)', extra=package)


def sampling(prompt: Prompt, config: RequestConfig, generation: Any, tokenizer: Any, longest: int | None) -> dict[str, Any]:
    """How an answer is drawn, everything that is open filled from the generation config, by the names that vLLM and its like use."""
    if config.num_beams > 1 or config.length_penalty != 1.0:
        raise SwiftError('num_beams, length_penalty: this engine has no beam search;', 'use the transformers engine, or leave them out')
    if form := config.form():
        raise SwiftError(f'{form.field}: this engine draws no answers of a given form;', 'use --infer_backend transformers, or leave it out')
    found = settled(prompt, config, generation, tokenizer, longest)
    names = ('max_tokens', 'temperature', 'top_k', 'top_p', 'min_p', 'repetition_penalty', 'presence_penalty', 'frequency_penalty')
    settings = {
        **{name: getattr(found, name) for name in names},
        'ignore_eos': config.ignore_eos,
        'stop': list(found.stops),
        'stop_token_ids': sorted(found.stop_ids),
        'n': config.n if found.temperature > 0 else 1,
    }
    return settings if config.seed is None else {**settings, 'seed': config.seed}
