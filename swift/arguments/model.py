"""Which model, and how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class ModelArgs:
    """What `swift.model` needs to turn an id or a directory into a model and its tokenizer."""

    model: str | None = None
    """Model id, local directory, or a run directory (its last checkpoint is taken)."""
    model_type: str | None = None
    """Model family; inferred from config.json. A checkpoint alias such as qwen-7b-chat stands for its model id."""
    model_revision: str | None = None
    """Branch, tag or commit on the hub."""
    adapters: list[str] = field(default_factory=list)
    """Trained adapters (checkpoint directories or ids) put on the model; the base model is read from their args.json."""
    task_type: Literal[
        'causal_lm', 'seq_cls', 'token_cls', 'embedding', 'reranker', 'generative_reranker', 'multi_task'
    ] = 'causal_lm'
    """What the model is trained for."""
    num_labels: int | None = None
    """Classes (or values) that a classification head tells apart; None: as many as the data has."""
    problem_type: Literal['regression', 'single_label_classification', 'multi_label_classification'] | None = None
    """Kind of seq_cls; None: by the labels: a class, a list of classes, or a number with a fraction."""
    class_names: list[str] = field(default_factory=list)
    """Names of the classes in the order of their numbers; none: those of the data."""
    torch_dtype: Literal['auto', 'bfloat16', 'float16', 'float32'] = 'auto'
    """Type of the weights; auto: the type in config.json on a GPU or NPU, float32 on the CPU."""
    attn_impl: str | None = None
    """Attention: flash_attn, flash_attention_3, sdpa, eager, flex_attention, or a hub kernel id; None: the best installed."""
    experts_impl: str | None = None
    """How mixture-of-experts layers compute: eager, batched_mm, grouped_mm; None: transformers' choice."""
    new_special_tokens: list[str] = field(default_factory=list, metadata={'split': False})
    """Special tokens added to the tokenizer (or .txt files with one per line); their rows are trained and saved."""
    rope_scaling: str | dict | None = None
    """Longer context by scaling positions: linear, dynamic, yarn, or a dict with transformers' keys."""
    rope_scaling_factor: float | None = None
    """Factor of rope_scaling; None: max_length divided by the model's own length."""
    max_model_len: int | None = None
    """Longest context the model is used with; None: what config.json says."""
    device_map: str | dict | None = None
    """Where layers go: auto, cpu, cuda:0, a dict or a JSON file; None: one device for each process."""
    max_memory: dict | None = None
    """Memory limit of each device for device_map, such as {"0": "20GiB", "cpu": "60GiB"}."""
    offload_folder: str | None = None
    """Folder for layers that device_map puts on disk."""
    init_strategy: (
        Literal[
            'zero',
            'uniform',
            'normal',
            'xavier_uniform',
            'xavier_normal',
            'kaiming_uniform',
            'kaiming_normal',
            'orthogonal',
        ]
        | None
    ) = None
    """How parameters that the checkpoint lacks are filled; None: missing weights are an error."""
    model_kwargs: dict = field(default_factory=dict)
    """Further keyword arguments of from_pretrained, as JSON."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
