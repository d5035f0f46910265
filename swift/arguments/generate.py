"""How answers are generated, and what `swift infer` does with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from swift.arguments.backends import BackendArgs


@dataclass
class GenerationArgs:
    """Sampling of answers; the request fields of `swift.infer_engine`."""

    max_new_tokens: int | None = None
    """Longest answer in tokens; None: what the context leaves (64 for predict_with_generate)."""
    temperature: float | None = None
    """Sampling temperature, 0 is greedy; None: the model's generation_config.json (0 for predict_with_generate)."""
    top_k: int | None = None
    """Sample from the k likeliest tokens; None: the model's generation_config.json."""
    top_p: float | None = None
    """Sample from the likeliest tokens with this total probability; None: the model's generation_config.json."""
    repetition_penalty: float | None = None
    """Above 1 discourages repetition; None: the model's generation_config.json."""
    num_beams: int = 1
    """Beams of beam search."""
    stop_words: list[str] = field(default_factory=list, metadata={'split': False})
    """Texts that end an answer, besides the template's own."""
    logprobs: bool = False
    """Return the log-probability of every token."""
    top_logprobs: int | None = None
    """With logprobs: the alternatives returned for every token."""


@dataclass
class EngineArgs(BackendArgs):
    """What answers, in every command that asks a model."""

    infer_backend: Literal['transformers', 'vllm', 'sglang', 'lmdeploy', 'client'] = 'transformers'
    """Engine that generates; client: a server at base_url."""
    max_batch_size: int = 64
    """Answers generated at once."""
    prefix_cache_tokens: int | None = None
    """Tokens of prompts and answers that are kept as keys and values, so that what begins alike is read once; 0: none, None: by the memory."""
    merge_lora: bool = False
    """Merge the adapters first (beside the first one, -merged appended) and answer with the merged model."""


@dataclass
class InferArgs:
    """What `swift infer` does."""

    stream: bool | None = None
    """Print tokens as they come; None: true when interactive."""
    result_path: str | None = None
    """Where answers are written as jsonl; None: a new file in infer_result/ of the model's or checkpoint's directory."""
    write_batch_size: int = 1000
    """Answers held back before they are written; never longer than two seconds."""
    val_dataset_sample: int | None = None
    """Answer only this many rows of the validation data."""
    metric: Literal['acc', 'rouge'] | None = None
    """Compare the answers with the rows' own: acc (exact match; of models that give numbers the figures of their task), or ROUGE and BLEU."""
