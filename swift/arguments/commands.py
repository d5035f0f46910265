"""The arguments of each command: its groups, and the defaults that differ."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from swift.arguments.app import AppArgs
from swift.arguments.backends import ClientArgs
from swift.arguments.base import RunArgs
from swift.arguments.data import DataArgs
from swift.arguments.deploy import DeployArgs
from swift.arguments.evaluate import EvalArgs, QuestionArgs
from swift.arguments.export import ExportArgs
from swift.arguments.generate import EngineArgs, GenerationArgs, InferArgs
from swift.arguments.inspection import PreviewArgs, VerifyArgs
from swift.arguments.model import ModelArgs
from swift.arguments.rlhf import RlhfArgs
from swift.arguments.sample import SampleArgs
from swift.arguments.task import ScoringArgs, TaskArgs
from swift.arguments.template import TemplateArgs
from swift.arguments.train import TrainArgs
from swift.arguments.tuner import TunerArgs


class Arguments:
    """What all argument classes can do. Once settled (`resolve` does that) no value changes any more."""

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get('_settled'):
            raise AttributeError(f'arguments are settled and cannot be changed (tried: {name}); parse new ones')
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f'arguments cannot be deleted (tried: {name})')

    def to_dict(self) -> dict[str, Any]:
        """Every value by name, as JSON can hold it."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def command(self) -> str | None:
        """The command that these arguments were settled for; None before."""
        return self.__dict__.get('_command')

    @property
    def sources(self) -> dict[str, str]:
        """Where every value that is not a default comes from: `command line`, `file …`, `environment …`, `args.json of …`, `derived`."""
        return dict(self.__dict__.get('_sources', {}))


@dataclass
class BaseArguments(RunArgs, TemplateArgs, ModelArgs, Arguments):
    """Groups that every command has: model, template, run."""


@dataclass
class SftArguments(QuestionArgs, TaskArgs, GenerationArgs, TunerArgs, DataArgs, TrainArgs, BaseArguments):
    """Arguments of `swift sft`."""


@dataclass
class PretrainArguments(SftArguments):
    """Arguments of `swift pt`."""

    use_chat_template: bool = False
    """Format rows with the chat template; false: plain text."""
    loss_scale: str = 'all'
    """Which tokens are trained and how much; all: every token."""


@dataclass
class RLHFArguments(RlhfArgs, SftArguments):
    """Arguments of `swift rlhf`."""

    loss_scale: str = 'last_round'
    """Which tokens are trained and how much; last_round: the last answer."""


@dataclass
class InferArguments(InferArgs, ClientArgs, EngineArgs, ScoringArgs, GenerationArgs, DataArgs, BaseArguments):
    """Arguments of `swift infer`."""

    load_args: bool = True
    """Take model and template settings from the args.json of the checkpoint; flags given here win."""


@dataclass
class EvalArguments(EvalArgs, EngineArgs, GenerationArgs, BaseArguments):
    """Arguments of `swift eval`."""

    load_args: bool = True
    """Take model and template settings from the args.json of the checkpoint; flags given here win."""
    temperature: float | None = 0.0
    """Sampling temperature, 0 is greedy; None: the model's generation_config.json."""
    max_new_tokens: int | None = 512
    """Longest answer in tokens; None: what the context leaves."""


@dataclass
class SampleArguments(SampleArgs, EngineArgs, GenerationArgs, DataArgs, BaseArguments):
    """Arguments of `swift sample`."""

    load_args: bool = True
    """Take model and template settings from the args.json of the checkpoint; flags given here win."""
    temperature: float | None = 1.0
    """Sampling temperature; None: the model's generation_config.json."""
    max_new_tokens: int | None = 512
    """Longest answer in tokens; None: what the context leaves."""
    dataset_shuffle: bool = False
    """Shuffle the rows when they are read."""


@dataclass
class DeployArguments(DeployArgs, EngineArgs, ScoringArgs, GenerationArgs, BaseArguments):
    """Arguments of `swift deploy`."""

    load_args: bool = True
    """Take model and template settings from the args.json of the checkpoint; flags given here win."""
    adapters: list[str] = field(default_factory=list)
    """Trained adapters: one put on the model, or name=path for each that requests choose by name (or a JSON file of name: path)."""


@dataclass
class AppArguments(AppArgs, ClientArgs, EngineArgs, GenerationArgs, BaseArguments):
    """Arguments of `swift app`."""

    load_args: bool = True
    """Take model and template settings from the args.json of the checkpoint; flags given here win."""
    adapters: list[str] = field(default_factory=list)
    """Trained adapters: one put on the model, or name=path for each that the page lets choose (or a JSON file of name: path)."""
    max_new_tokens: int | None = 2048
    """Longest answer in tokens; None: what the context leaves."""


@dataclass
class ExportArguments(ExportArgs, BaseArguments):
    """Arguments of `swift export`."""

    load_args: bool = True
    """Take model and template settings from the args.json of the checkpoint; flags given here win."""


@dataclass
class MergeArguments(ExportArguments):
    """Arguments of `swift merge-lora`."""

    merge_lora: bool = True
    """Merge the adapters into the model and write a model that needs none."""


@dataclass
class PlanArguments(RlhfArgs, SftArguments):
    """Arguments of `swift plan`."""

    rlhf_type: Literal['dpo', 'kto', 'orpo', 'cpo', 'simpo', 'rm'] | None = None
    """Method of swift rlhf that is looked at; None: swift sft."""


@dataclass
class PreviewArguments(PreviewArgs, PlanArguments):
    """Arguments of `swift preview`."""


@dataclass
class VerifyArguments(VerifyArgs, PlanArguments):
    """Arguments of `swift verify`."""

    load_args: bool = True
    """Take model, template and data settings from the args.json of the checkpoint; flags given here win."""


CLASSES: dict[str, type[Arguments]] = {
    'pt': PretrainArguments,
    'sft': SftArguments,
    'rlhf': RLHFArguments,
    'infer': InferArguments,
    'eval': EvalArguments,
    'sample': SampleArguments,
    'deploy': DeployArguments,
    'app': AppArguments,
    'export': ExportArguments,
    'merge-lora': MergeArguments,
    'plan': PlanArguments,
    'preview': PreviewArguments,
    'verify': VerifyArguments,
}
"""Command → its arguments."""

TRAINING = ('pt', 'sft', 'rlhf', 'plan', 'preview', 'verify')
"""Commands with training flags."""
