"""What `swift eval` asks, how answers are compared, and where reports go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class QuestionArgs:
    """Questions with known answers: asked by `swift eval`, and at every evaluation of a training."""

    eval_dataset: list[str] = field(default_factory=list)
    """What is asked: files, or kind:file where the kind (choice, qa, math, generation, or a benchmark such as mmlu) is not plain from the rows."""
    eval_limit: int | None = None
    """Ask only so many rows of each data set, the first ones."""
    eval_dataset_args: dict = field(default_factory=dict)
    """Settings of single data sets, as JSON: {"name": {"num_shots": 5, "shots_dataset": …, "limit": …, "metrics": […], "prompt": …}}."""
    eval_generation_config: dict = field(default_factory=dict)
    """Fields of the request as JSON, such as {"max_tokens": 64, "temperature": 0}; they win over the flags of generation."""


@dataclass
class EvalArgs(QuestionArgs):
    """What `swift eval` does."""

    eval_mode: Literal['generate', 'likelihood'] = 'generate'
    """How multiple choice is answered: by a generated letter, or by the likelihood of every choice."""
    eval_metrics: list[str] = field(default_factory=list)
    """How answers are judged: exact, normalised, accuracy, rouge, or names that a plugin adds; none: by the kind of data set."""
    num_shots: int = 0
    """Answered examples before every question."""
    shots_dataset: str | None = None
    """File with the examples; None: the head of the data set (a row is never its own example)."""
    eval_output_dir: str = 'eval_output'
    """Where answers and reports go, a folder for each evaluation; one that was stopped goes on."""
    eval_backend: Literal['Native', 'EvalScope', 'OpenCompass', 'VLMEvalKit', 'lm-eval'] = 'Native'
    """Who asks: swift itself, or a program in an environment of its own that talks to a server."""
    eval_url: str | None = None
    """Ask this server (OpenAI's API) instead of loading the model; --model is then the name there (None: the first one listed)."""
    api_key: str | None = None
    """Key of the server; None: the environment's OPENAI_API_KEY."""
    eval_num_proc: int = 16
    """Requests to the server at once."""
    extra_eval_args: dict = field(default_factory=dict)
    """Further settings of the program of eval_backend, as JSON."""
    columns: dict[str, str] = field(default_factory=dict)
    """Renames columns, as JSON: {"their name": "our name"}."""
    strict: bool = False
    """Stop at the first row that can't be asked or answered; false: it counts as a wrong answer."""
