"""The training method of a command: its arguments settled by the data, its rows, its objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from swift.arguments import Facts, resolve
from swift.arguments.methods import method_of
from swift.dataset.load import Splits
from swift.dataset.tasks import task_names
from swift.model.sentence_transformers import default_pooling
from swift.objectives import get_objective
from swift.objectives.base import Objective
from swift.pipelines.data import load_rows
from swift.pipelines.labels import label_facts


@dataclass(frozen=True)
class Settled:
    """A method with everything that the rows decide about it."""

    name: str
    args: Any
    """The arguments, with what only the data could tell (classes, whether there is validation)."""
    splits: Splits
    objective: Objective


def settle(args: Any, command: str, info: Any) -> Settled:
    """Read the rows and settle the method on them. `info` is the ModelInfo."""
    name = method_of(command, vars(args))
    splits = load_rows(args)
    pooling = default_pooling(info) if name == 'embedding' and args.pooling is None else None
    tasks = task_names(splits.train or splits.val) if name == 'multi_task' and not args.tasks else ()
    labels = label_facts(name, args, info, splits)
    facts = Facts(splits.val is not None, info.max_model_len, labels, pooling, tasks, multimodal=info.is_multimodal)
    args = resolve(args, facts)
    return Settled(name, args, splits, get_objective(name, args, info.hidden_size))
