"""Which weights learn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class TunerArgs:
    """What `swift.tuners` needs to make a model trainable."""

    tuner_type: str = 'lora'
    """lora: train low-rank adapters; full: train the weights themselves; or a name that a plugin registered."""
    tuner_backend: Literal['peft'] = 'peft'
    """Library that makes the adapters."""
    target_modules: list[str] = field(default_factory=lambda: ['all-linear'])
    """Modules that get an adapter: all-linear, name endings, or names with wildcards."""
    target_regex: str | None = None
    """Regular expression over full module names, instead of target_modules."""
    target_parameters: list[str] = field(default_factory=list)
    """Bare parameters that get an adapter too, such as the stacked experts of a mixture-of-experts layer."""
    modules_to_save: list[str] = field(default_factory=list)
    """Modules trained and saved in full beside the adapter (embedding and lm_head are understood in every model)."""
    lora_rank: int = 8
    """Rank of the adapter matrices."""
    lora_alpha: int | float = 32
    """Adapters are scaled by lora_alpha / lora_rank."""
    lora_dropout: float = 0.05
    """Dropout in front of the adapter."""
    lora_bias: Literal['none', 'all', 'lora_only'] = 'none'
    """Biases that are trained too."""
    lora_dtype: Literal['float16', 'bfloat16', 'float32'] | None = None
    """Type of the adapter weights; None: float32 for half-precision models, as PEFT does."""
    lorap_lr_ratio: float | None = None
    """LoRA+: the B matrices learn this many times faster than the A matrices."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(lora_rank)."""
    use_dora: bool = False
    """Train magnitude and direction separately (DoRA)."""
    init_weights: str = 'true'
    """How adapters start: true, false, gaussian, pissa, pissa_niter_N, olora, loftq."""
    vit_lora_rank: int | None = None
    """Rank of the adapters in the vision and audio towers (scaled by lora_alpha / vit_lora_rank); None: lora_rank."""
    freeze_llm: bool = False
    """Multimodal models: the language model (embedding and lm_head included) stays as it is; with lora, all-linear leaves it out."""
    freeze_vit: bool = True
    """Multimodal models: the vision and audio towers stay as they are; with lora, all-linear leaves them out."""
    freeze_aligner: bool = True
    """Multimodal models: what joins towers and language model stays as it is; with lora, all-linear leaves it out."""
    freeze_parameters: list[str] = field(default_factory=list)
    """full: parameters whose names start with one of these stay as they are."""
    freeze_parameters_regex: str | None = None
    """full: parameters whose names match stay as they are."""
    freeze_parameters_ratio: float = 0.0
    """full: share of the parameters, from the input side, that stay as they are."""
    trainable_parameters: list[str] = field(default_factory=list)
    """full: parameters whose names start with one of these are trained even if frozen otherwise."""
    trainable_parameters_regex: str | None = None
    """full: parameters whose names match are trained even if frozen otherwise."""
