"""One optimizer step of any training method on a tiny model, on any division into micro-batches and processes.

Processes are threads here, each with a copy of everything; `gather` waits for all of them as the real one does.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from swift.core.types import Actors, Batch, Sample
from swift.dataset.loader import collated
from swift.objectives.base import Objective
from swift.trainers.forward import ModelActor, Plan
from swift.trainers.meter import Meter
from tests.helpers.methods import CASES, case_settings

FILLER: tuple = ()
"""A micro-batch that only keeps a process in step."""

Micro = Sequence[Sample]


@dataclass(frozen=True)
class Bench:
    """A method with everything a step needs."""

    objective: Objective
    model: nn.Module
    """The policy; other roles start as `before`."""
    before: nn.Module
    plan: Plan
    samples: list[Sample]


def make_bench(name: str, folder: str, model: str, *, noise: float = 0.05, rows: Any = None, **flags: Any) -> Bench:
    """The method as a training sets it up; the policy has moved away from the reference by random noise."""
    from swift.arguments import Facts, parse_args, resolve
    from swift.model.load import load_model, load_processor, model_info
    from swift.pipelines.data import encode_data
    from swift.pipelines.methods import settle
    from swift.pipelines.templates import template_for
    from swift.trainers import selfcheck

    case = CASES[name]
    args = parse_args(case.command, case_settings(name, folder, model, rows=rows, tuner_type='full', load_from_cache_file=False, **flags))
    info = model_info(args)
    method = settle(resolve(args, Facts(None, info.max_model_len)), case.command, info)
    template = template_for(load_processor(args), method.args, info)
    data = encode_data(method.args, method.objective, template, splits=method.splits)
    samples = [template.read_media(data.train[index]) for index in range(len(data.train))]
    head = tuple(str(getattr(method.args, field)) for field in ('model', 'task_type', 'num_labels', 'problem_type', 'class_names'))
    if head not in _models:
        loaded = load_model(method.args, for_training=True).model.eval()
        _models[head] = loaded, selfcheck.plan(loaded, samples[:2])
    loaded, plan = _models[head]
    assert plan.flat, plan.reason
    assert all(weight.requires_grad for weight in loaded.parameters()), 'or no gradient could reach the reference'
    return Bench(method.objective, _moved(loaded, noise), loaded, plan, samples)


_models: dict[tuple, Any] = {}
"""Models that were loaded, and how they are run."""


def _moved(model: nn.Module, noise: float) -> nn.Module:
    moved, generator = copy.deepcopy(model), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in moved.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=noise)
    return moved


@dataclass(frozen=True)
class Step:
    """What came of a step: every number is over all its micro-batches and processes."""

    loss: float
    """The sum of losses over the weight."""
    weight: float
    gradient: Tensor
    """[parameters of the policy and of the method], of the mean loss."""
    metrics: dict[str, float]


class _Together:
    """`gather` among threads; a thread that doesn't come breaks it for all."""

    def __init__(self, size: int):
        self.barrier = threading.Barrier(size, timeout=60)
        self.slots: list[Tensor | None] = [None] * size

    def gather(self, rank: int) -> Callable[[Tensor], Tensor]:
        def join(value: Tensor) -> Tensor:
            self.slots[rank] = value
            self.barrier.wait()
            found = torch.cat(self.slots)
            self.barrier.wait()
            return found

        return join


def run_step(bench: Bench, *processes: Sequence[Micro], padded: bool = False, evaluate: bool = False) -> Step:
    """One optimizer step: for every process its micro-batches."""
    together = _Together(len(processes))
    found: list[Any] = [None] * len(processes)

    def work(rank: int) -> None:
        try:
            found[rank] = _process(bench, processes[rank], padded, together.gather(rank))
        except BaseException as error:
            found[rank] = error
            together.barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(processes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [item for item in found if isinstance(item, BaseException)]
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    weight = sum(item[1] for item in found)
    totals: dict[str, list[float]] = {}
    for *_, meter in found:
        for metric, values in meter.items():
            pair = totals.setdefault(metric, [0.0, 0])
            pair[0], pair[1] = pair[0] + float(values.double().sum()), pair[1] + values.numel()
    metrics = {metric: total / count for metric, (total, count) in totals.items() if count}
    return Step(sum(item[0] for item in found) / weight, weight, sum(item[2] for item in found) / weight, metrics)


def _process(bench: Bench, micro: Sequence[Micro], padded: bool, gather: Callable[[Tensor], Tensor]) -> tuple:
    """(sum of losses, weight, gradient of that sum, metrics) of one process, by the rules of the Trainer."""
    objective, model, before = copy.deepcopy((bench.objective, bench.model, bench.before))
    plan = replace(bench.plan, flat=not padded)
    others = {role: ModelActor(before, plan) for role in objective.roles if role != 'policy'}
    actors = Actors(ModelActor(model, plan), **others)

    def collate(samples: Sequence[Sample]) -> Batch:
        return objective.collate(list(samples), padded=padded)

    batches = [collated(collate, list(samples) or bench.samples[:1], not samples) for samples in micro]
    weight = float(sum(objective.weight(batch) for batch in batches))
    with torch.no_grad():
        objective.prepare(batches, actors, gather)
    total, metrics = 0.0, {}
    for batch in batches:
        loss = objective.loss(batch, actors)
        assert loss.sum.dim() == 0 and loss.sum.requires_grad and bool(loss.sum.isfinite())
        filler = bool(batch.extra.get('filler'))
        (loss.sum * (0.0 if filler else 1.0)).backward()
        if not filler:
            total += float(loss.sum.detach())
            for name, values in loss.metrics.items():
                metrics[name] = torch.cat([metrics[name], values]) if name in metrics else values
    assert all(weights.grad is None for weights in before.parameters()), 'a gradient reached another model than the policy'
    learning = [*model.parameters(), *(objective.module.parameters() if objective.module is not None else ())]
    gradient = torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).reshape(-1) for w in learning])
    assert bool(gradient.isfinite().all())
    return total, weight, gradient, metrics


def evaluate(bench: Bench, *batches: Micro) -> dict[str, float]:
    """The metrics of an evaluation over the batches, as the Trainer makes them."""
    objective, meter = bench.objective, Meter()
    actors = Actors(ModelActor(bench.model, bench.plan), **{r: ModelActor(bench.before, bench.plan) for r in objective.roles if r != 'policy'})
    outputs: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for samples in batches:
            batch = objective.collate(list(samples), padded=False)
            objective.prepare([batch], actors, lambda value: value)
            loss = objective.loss(batch, actors)
            meter.add(loss.metrics)
            for name, values in loss.outputs.items():
                outputs.setdefault(name, []).append(values)
    return objective.measure({name: torch.cat(values) for name, values in outputs.items()})
