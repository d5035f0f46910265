"""How `swift sample` draws answers, which of them it keeps, and where."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class SampleArgs:
    """What `swift sample` does."""

    sampler_type: Literal['sample', 'distill', 'mcts'] = 'sample'
    """Where answers come from: many from the model, one from a better model behind a URL, or a tree search over steps."""
    sampler_engine: Literal['transformers', 'client', 'no'] | None = None
    """What generates: the model here, a server (engine_kwargs), or nothing (cache_files); None: client to distill, else transformers."""
    engine_kwargs: dict = field(default_factory=dict)
    """Of client, as JSON: {"base_url": …, "api_key": …, "concurrency": 16}."""
    num_return_sequences: int | None = None
    """Answers drawn for each prompt (mcts: rollouts of a step); None: 64, of distill 1, of mcts 4."""
    n_best_to_keep: int = 5
    """Answers of a prompt that are kept at most."""
    sample_select: Literal['best', 'majority'] = 'best'
    """Which are kept: those with the best scores, or those that agree with most of the others."""
    orm_model: str | None = None
    """Judges answers: a name such as accuracy (a plugin adds more), or the directory of a reward model. None: none are thrown away."""
    orm_threshold: float | None = None
    """Answers must score above it; None: 0 for a name, no bound for a reward model."""
    prm_model: str | None = None
    """Judges the way to the answer: a name such as equations, or the directory of a reward model."""
    prm_threshold: float = 0.0
    """Answers whose way scores below it are thrown away."""
    easy_query_threshold: float | None = None
    """Prompts whose share of right answers is above it are left out; None: none are."""
    pairs_only: bool = False
    """Leave out answers that no rejected one stands beside, so that every row is one for swift dpo."""
    num_sampling_batch_size: int = 16
    """Prompts that are answered, judged and stored together."""
    num_sampling_batches: int | None = None
    """Stop after so many batches; None: all prompts."""
    data_range: list[int] = field(default_factory=list)
    """Two numbers i n: take the i-th (from 0) of n equal parts of the data, to share it among machines."""
    cache_files: list[str] = field(default_factory=list)
    """Answers drawn before (rows with messages and choices), judged again; with --sampler_engine no nothing is drawn anew."""
    output_dir: str = 'sample_output'
    """Folder of the results."""
    output_file: str | None = None
    """Name of the result; None: the time it was begun."""
    resume: bool = False
    """Go on where a sampling to the same output_file was stopped."""
    override_exist_file: bool = False
    """Write over output_file if it is there."""
    max_iterations: int = 64
    """Mcts: how often the tree of a prompt is descended."""
    exploration_rate: float = 0.5
    """Mcts: weight of the exploration term of UCT."""
    process_reward_rate: float = 0.0
    """Mcts: share of prm_model in the value of a step; the rest is how its rollouts end."""
    rollout_depth: int = 16
    """Mcts: steps of an answer at most."""
    step_tokens: int = 128
    """Mcts: longest step in tokens; it ends at one of stop_words too (none: at a line break)."""
