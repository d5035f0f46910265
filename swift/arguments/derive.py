"""Every derived default, in one readable order. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from swift.arguments.commands import CLASSES, TRAINING, Arguments
from swift.arguments.flags import flags_of
from swift.arguments.media_rules import text_only_mistakes
from swift.arguments.methods import METHODS, method_defaults, method_of
from swift.core.errors import ArgumentsError
from swift.core.log import get_logger

A = TypeVar('A', bound=Arguments)

LEARNING_RATE = {'lora': 1e-4, 'full': 1e-5}

OVERRULED = ('eval_strategy',)
"""Given values that a rule may replace: without validation rows nothing is evaluated, whatever was asked (checks warn)."""


@dataclass(frozen=True)
class Labels:
    """The classes of a classification, as the rows have them."""

    count: int
    names: tuple[str, ...] = ()
    """In the order of their numbers. Empty: numbers are all there is."""
    problem_type: str | None = None


@dataclass(frozen=True)
class Facts:
    """What becomes known after parsing. None: not known yet."""

    has_validation: bool | None = None
    """Whether there are validation rows."""
    model_max_length: int | None = None
    """The longest context of the loaded model."""
    labels: Labels | None = None
    """The classes that the rows name."""
    pooling: str | None = None
    """How the model makes one vector of a text."""
    tasks: tuple[str, ...] = ()
    """The tasks that the rows name."""
    multimodal: bool | None = None
    """Whether the model sees images or videos, or hears."""


def resolve(args: A, facts: Facts | None = None) -> A:
    """New, settled arguments with every default derived that `args` and `facts` allow. Given values stay (but see OVERRULED).

    `args` may be settled already: what was given stays given and the rest is derived anew from the new facts.
    Raises ArgumentsError for flags that the model of these facts has no use for.
    """
    given = {name: (getattr(args, name), source) for name, source in args.sources.items() if source != 'derived'}
    if not args.sources:
        given = _set_by_hand(args)
    settled = settle(type(args), args.command or _command_of(type(args)), given, facts or Facts())
    if facts is not None and facts.multimodal is False:
        _check_text_only(settled)
    return settled


def _check_text_only(args: Arguments) -> None:
    defaults = {name: flag.default for name, flag in flags_of(type(args)).items()}
    mistakes = text_only_mistakes(args.to_dict(), args.sources, defaults)
    if mistakes and not args.ignore_args_error:
        raise ArgumentsError(mistakes)
    for mistake in mistakes:
        get_logger().warning(mistake)


def settle(cls: type[A], command: str, given: Mapping[str, tuple[Any, str]], facts: Facts) -> A:
    """Arguments of a command from what was given (flag → value, source)."""
    values = {name: flag.default for name, flag in flags_of(cls).items()}
    values = {name: value.copy() if isinstance(value, (list, dict)) else value for name, value in values.items()}
    values.update({name: value for name, (value, _) in given.items()})
    sources = {name: source for name, (_, source) in given.items()}
    for rule in RULES[command]:
        for name, value in rule({**values, '_command': command}, given, facts).items():
            if (name not in given or name in OVERRULED) and values[name] != value:
                values[name], sources[name] = value, 'derived'
    args = cls(**values)
    object.__setattr__(args, '_command', command)
    object.__setattr__(args, '_sources', sources)
    object.__setattr__(args, '_settled', True)
    return args


def _set_by_hand(args: Arguments) -> dict[str, tuple[Any, str]]:
    return {
        name: (getattr(args, name), 'python')
        for name, flag in flags_of(type(args)).items()
        if getattr(args, name) != flag.default
    }


def _command_of(cls: type) -> str:
    return next(command for command, known in CLASSES.items() if known is cls)


Rule = Callable[[dict[str, Any], Mapping[str, Any], Facts], dict[str, Any]]


def seeds(values: dict[str, Any], given: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """One seed for everything unless told otherwise."""
    return {'data_seed': values['seed'] if values['data_seed'] is None else values['data_seed']}


def method(values: dict[str, Any], given: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """What the training method brings along."""
    return method_defaults(values['_command'], values)


def classes(values: dict[str, Any], given: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """The head of a classification has the classes of the data."""
    if facts.labels is None:
        return {}
    labels = facts.labels
    return {'num_labels': labels.count, 'class_names': list(labels.names), 'problem_type': labels.problem_type}


def pooling(values: dict[str, Any], given: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """A text becomes a vector in the way of its model."""
    return {'pooling': values['pooling'] or facts.pooling}


def tasks(values: dict[str, Any], given: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """The tasks are those of the data."""
    return {'tasks': list(facts.tasks) or values['tasks']}


def lengths(values: dict[str, Any], given: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """The model's own length, and rows of that length when packing."""
    longest = values['max_length'] or values['max_model_len'] or facts.model_max_length
    segments = METHODS[method_of(values['_command'], values)].segments
    row = longest * segments if values['packing'] and longest else None
    return {'max_length': longest, 'packing_length': values['packing_length'] or row}


def learning_rate(values: dict[str, Any], given: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """Adapters learn ten times faster than whole models."""
    rate = values['learning_rate']
    return {'learning_rate': LEARNING_RATE.get(values['tuner_type'], LEARNING_RATE['lora']) if rate is None else rate}


def evaluation(values: dict[str, Any], given: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """Evaluate when there is something to evaluate on, as often as checkpoints are saved."""
    known = facts.has_validation
    validation = bool(values['val_dataset'] or values['split_dataset_ratio'] > 0) if known is None else known
    strategy = values['eval_strategy']
    if not validation:
        strategy = 'no'
    elif strategy is None:
        strategy = {'best': 'steps'}.get(values['save_strategy'], values['save_strategy'])
    steps = values['eval_steps'] if values['eval_steps'] is not None else values['save_steps']
    return {'eval_strategy': strategy, 'eval_steps': steps if strategy == 'steps' else values['eval_steps']}


def generation(values: dict[str, Any], given: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """Evaluation by generation is short and greedy, and judged by ROUGE-L."""
    if not values['predict_with_generate']:
        best = values['metric_for_best_model'] or 'loss'
        return {'metric_for_best_model': best, 'greater_is_better': _rises(values, best)}
    best = values['metric_for_best_model'] or 'rouge-l'
    return {
        'max_new_tokens': 64 if values['max_new_tokens'] is None else values['max_new_tokens'],
        'temperature': 0.0 if values['temperature'] is None else values['temperature'],
        'eval_metric': values['eval_metric'] or 'rouge',
        'metric_for_best_model': best,
        'greater_is_better': _rises(values, best),
    }


def _rises(values: dict[str, Any], metric: str) -> bool:
    given = values['greater_is_better']
    return not metric.endswith(('loss', 'perplexity', 'ppl')) if given is None else given


def loading(values: dict[str, Any], given: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """Tokenised rows need no worker processes."""
    lazy = bool(values['lazy_tokenize'])
    workers = values['dataloader_num_workers']
    return {
        'lazy_tokenize': lazy,
        'dataloader_num_workers': (1 if lazy or values['streaming'] else 0) if workers is None else workers,
    }


def streaming_answers(values: dict[str, Any], given: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """Tokens appear as they come when somebody is watching."""
    from_file = bool(values['val_dataset'] or values['load_data_args'] or values['dataset'])
    return {'stream': not from_file if values['stream'] is None else values['stream']}


def merged_directory(values: dict[str, Any], given: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """A merged model lies beside its adapter."""
    if values['output_dir'] or not values['merge_lora'] or not values['adapters']:
        return {}
    return {'output_dir': values['adapters'][0].rstrip('/') + '-merged'}


_TRAIN: list[Rule] = [seeds, method, classes, pooling, tasks, lengths, learning_rate, evaluation, generation, loading]

RULES: dict[str, list[Rule]] = {
    **dict.fromkeys(TRAINING, _TRAIN),
    'infer': [seeds, method, streaming_answers],
    'eval': [],
    'sample': [seeds],
    'deploy': [method],
    'app': [],
    'export': [merged_directory],
    'merge-lora': [merged_directory],
}
"""Command → its derived defaults, in order."""
