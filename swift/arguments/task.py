"""Training for something else than the next token: embeddings, rerankers, several tasks at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class ScoringArgs:
    """How a vector or a score is read off a model, in training and afterwards."""

    pooling: Literal['last', 'mean', 'cls'] | None = None
    """How a text becomes one vector; None: last token for decoders, cls for encoders that were trained so, else mean."""
    positive_token: str = 'yes'
    """Token whose probability is the score of a generative reranker."""
    negative_token: str = 'no'
    """Token that stands against it."""


@dataclass
class TaskArgs(ScoringArgs):
    """What the objectives of `--task_type` need besides the model's own fields."""

    infonce_temperature: float = 0.1
    """Temperature of the InfoNCE loss."""
    infonce_use_batch: bool = True
    """Texts of other rows of the whole step are negatives too."""
    infonce_hard_negatives: int | None = None
    """Negatives used of each row, the first ones; rows may have fewer. None: all there are."""
    infonce_mask_fake_negative: bool = False
    """Leave out negatives that are more similar than the positive by infonce_fake_neg_margin."""
    infonce_fake_neg_margin: float = 0.1
    """Similarity above the positive's from which a negative counts as a fake one."""
    infonce_include_qq: bool = False
    """Queries of other rows are negatives of a query too."""
    infonce_include_dd: bool = False
    """Documents of other rows are negatives of a document too."""
    mrl_dims: list[int] = field(default_factory=list)
    """Dimensions that embeddings can be cut to (Matryoshka); the loss is the mean over them and the full one."""
    margin: float | None = None
    """Margin of the contrastive (0.5) and triplet (0.2) losses."""
    cosent_scale: float = 20.0
    """Scale of the similarities in the CoSENT loss."""
    listwise_temperature: float = 1.0
    """Temperature of the listwise reranker loss."""
    max_positive_samples: int | None = None
    """Positives used of each embedding or reranker row, the first ones; None: all."""
    max_negative_samples: int | None = None
    """Negatives used of each embedding or reranker row, the first ones; None: all."""
    task_weights: list[float] | None = None
    """Weight of each task of --task_type multi_task, in the order of tasks; None: 1 each."""
    tasks: list[str] = field(default_factory=list)
    """Names of the tasks; none: those of the data, in the order of their task_templates, else of the alphabet."""
    routing_strategy: Literal['fixed', 'uncertainty', 'learned'] = 'fixed'
    """How tasks are weighed: fixed, by learned uncertainty, or by a router that learns to tell tasks apart."""
