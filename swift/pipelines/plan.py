"""`swift plan` (and `--dry_run true`): what a run would do, before it does anything.

Rows are read and tokenised (and cached, so the run itself need not do it again); the model is built without its weights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from swift.arguments.methods import METHODS
from swift.core.dist import world_size
from swift.core.log import get_logger
from swift.objectives import loss_names
from swift.pipelines.base import SwiftPipeline
from swift.pipelines.estimate import DTYPE_BYTES, MemoryEstimate, estimate_memory, human
from swift.pipelines.plan_media import budgets_of, media_facts, media_lines, parts_lines, parts_that_learn, towers_of
from swift.pipelines.reference import keeps_copy
from swift.pipelines.segments import GROUPS, PAIRS
from swift.template.runs import media_kinds

logger = get_logger()


def plan_main(args: Any = None) -> dict[str, Any]:
    """Print the plan of a training run and return it as a dict."""
    return SwiftPlan(args).main()


class SwiftPlan(SwiftPipeline):
    """The pipeline of `swift plan`; takes the flags of `swift sft`."""

    command = 'plan'

    def run(self) -> dict[str, Any]:
        """Plan and print."""
        return plan(self.args, self.command)


def plan(args: Any, command: str) -> dict[str, Any]:
    """Everything that can be known about a run without its weights. Printed, and returned as a dict."""
    from swift.arguments import Facts, resolve
    from swift.model.load import load_processor, model_info
    from swift.pipelines.data import encode_data
    from swift.pipelines.methods import settle
    from swift.pipelines.templates import template_for

    info = model_info(args)
    args = resolve(args, Facts(model_max_length=info.max_model_len, multimodal=info.is_multimodal))
    budgets = budgets_of(args, args.sources)
    template = template_for(load_processor(args), args, info)
    method = settle(args, command, info)
    args = method.args
    data = encode_data(args, method.objective, template, splits=method.splits)
    report: dict[str, Any] = {
        'model': {'directory': info.model_dir, 'type': info.model_type, 'context': info.max_model_len},
        'method': method_facts(method.name, args),
        'data': _data(data, args, template, info),
        'budgets': budgets if media_kinds(template) else {},
        'steps': _steps(data, args, method.objective.several),
        'parameters': _parameters(args, info),
    }
    report['memory'] = _memory(args, info, report)
    report['output'] = _output(args, report)
    _print(report, args, media_kinds(template))
    return report


def method_facts(name: str, args: Any) -> dict[str, Any]:
    """The method, its losses, what it is compared with, and its classes."""
    chosen = METHODS[name]
    losses = loss_names(args) or list(chosen.losses[:1])
    return {'name': name, 'losses': losses, 'reference': reference_of(name, args), 'classes': list(args.class_names), 'num_labels': args.num_labels}


def reference_of(name: str, args: Any) -> str | None:
    """Where the reference of a preference method comes from, in words; None: it has none."""
    if not METHODS[name].reference:
        return None
    if args.reference_free:
        return 'none (--reference_free)'
    copied = args.tuner_type != 'lora' or args.sync_ref_model
    where = args.ref_model or ('a copy of the model' if copied else 'the model without the adapter that is trained')
    where += f' with {", ".join(args.ref_adapters)}' if args.ref_adapters else ''
    if args.precompute_ref_log_probs:
        return f'{where}, asked once before training'
    return f'{where}, which follows the policy every {args.ref_model_sync_steps} steps' if args.sync_ref_model else where


def _data(data: Any, args: Any, template: Any, info: Any) -> dict[str, Any]:
    bad = data.splits.bad_rows
    facts: dict[str, Any] = {
        'rows': bad.good_count or None, 'bad_rows': bad.bad_count, 'first_bad': bad.first, 'too_long': bad.long_count,
    }  # fmt: skip
    if args.streaming or args.lazy_tokenize:
        return {**facts, 'samples': None, 'tokens': None}
    lengths = np.asarray(data.train.lengths)
    return {
        **facts,
        'samples': len(lengths),
        'tokens': int(lengths.sum()),
        'trained_tokens': int(data.train.labelled),
        'longest': int(lengths.max()),
        'percentiles': {q: int(np.percentile(lengths, q)) for q in (5, 50, 95)},
        'media': media_facts(data.train, template, info.config),
        'histogram': _histogram(lengths),
        'validation_samples': None if data.val is None else len(data.val),
    }


def _histogram(lengths: np.ndarray) -> list[tuple[int, int, int]]:
    """(from, to, count) over powers of two."""
    edges = [0] + [2**power for power in range(5, int(lengths.max()).bit_length() + 1)]
    counts, _ = np.histogram(lengths, bins=[*edges[:-1], edges[-1] + 1] if len(edges) > 1 else [0, int(lengths.max()) + 1])
    return [(low, high, int(count)) for low, high, count in zip(edges, edges[1:], counts, strict=False) if count]


def _steps(data: Any, args: Any, oversize: bool) -> dict[str, Any]:
    """Micro-batches and optimizer steps, counted from the real plan of the first epoch."""
    from swift.dataset.loader import make_loader

    accumulation = args.gradient_accumulation_steps
    if args.streaming:
        return {'optimizer_steps': args.max_steps, 'per_epoch': None}
    loader = make_loader(
        data.train,
        lambda samples: samples,
        batch_size=args.per_device_train_batch_size,
        packing_length=args.packing_length if args.packing else None,
        oversize=oversize,
        max_batch_tokens=args.max_batch_tokens,
        shuffle=args.train_dataloader_shuffle,
        seed=args.data_seed,
        world_size=world_size(),
        drop_last=args.dataloader_drop_last,
        group_by_length=args.group_by_length,
    )
    micro = len(loader)
    per_epoch = max(math.ceil(micro / accumulation), 1)
    total = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
    facts = {'micro_batches_per_epoch': micro, 'per_epoch': per_epoch, 'optimizer_steps': total}
    if args.packing:
        facts['packing_fill'] = int(np.asarray(data.train.lengths).sum()) / (_packs(loader) * args.packing_length)
    return facts


def _packs(loader: Any) -> int:
    return sum(len(group) for group in loader.plan.epoch(0))


def _parameters(args: Any, info: Any) -> dict[str, Any]:
    """Counted on the model built without weights (meta device), tuner included."""
    import torch

    from swift.model.empty import empty_model
    from swift.tuners import coverage, prepare_tuner

    with torch.device('meta'):
        model = empty_model(args, info)
        learner = prepare_tuner(model, args, info=info)
        reach = coverage(learner)
    parts = parts_that_learn(learner)
    return {'parts': parts, 'total': reach.total, 'trainable': reach.trainable, 'share_reached': reach.share, 'lines': str(reach).splitlines()}


def _memory(args: Any, info: Any, report: dict[str, Any]) -> MemoryEstimate | None:
    data = report['data']
    longest = data.get('longest') or args.max_length
    if not longest:
        return None
    if args.packing:
        tokens = args.packing_length * args.per_device_train_batch_size
    else:
        tokens = args.max_batch_tokens or longest * args.per_device_train_batch_size
    share = data['trained_tokens'] / data['tokens'] if data.get('tokens') else 1.0
    parts = report['parameters']['parts'] or {}
    learns = any(parts.get(part, (0, 0))[0] for part in ('vit', 'aligner'))
    return estimate_memory(
        info.config,
        parameters=report['parameters']['total'],
        trainable=report['parameters']['trainable'],
        dtype=_dtype(args, info),
        tokens=tokens,
        labelled_tokens=math.ceil(tokens * min(1.0, 1.5 * share)),
        gradient_checkpointing=args.gradient_checkpointing,
        optim=args.optim,
        lora_rank=args.lora_rank if args.tuner_type == 'lora' else None,
        reference=report['parameters']['total'] if METHODS[report['method']['name']].reference and keeps_copy(args) else 0,
        towers=towers_of(data.get('media'), info.config, tokens, args, learns),
    )


def _dtype(args: Any, info: Any) -> str:
    from swift.model.load import torch_dtype

    name = str(torch_dtype(args.torch_dtype, info)).removeprefix('torch.')
    return name if name in DTYPE_BYTES else 'float32'


def _output(args: Any, report: dict[str, Any]) -> dict[str, Any]:
    """Where files go, how many checkpoints there will be, and their size."""
    steps = report['steps']['optimizer_steps']
    every = args.save_steps if args.save_steps >= 1 else max(1, math.ceil(args.save_steps * steps))
    if args.save_strategy == 'no':
        count = 0
    elif args.save_strategy == 'epoch':
        count = math.ceil(args.num_train_epochs)
    else:
        count = math.ceil(steps / every)
    kept = min(count, args.save_total_limit) if args.save_total_limit else count
    weights = report['parameters']['trainable'] if args.tuner_type == 'lora' else report['parameters']['total']
    size = weights * 4 + (0 if args.save_only_model else report['parameters']['trainable'] * 8)
    folder = os.path.join(args.output_dir, 'vN-date-time') if args.add_version else args.output_dir
    return {'folder': folder, 'checkpoints': count, 'kept': kept, 'bytes_each': size}


def unit_name(method: str) -> str:
    """What a sample is to the method."""
    return 'pairs' if method in PAIRS else 'groups' if method in GROUPS else 'samples'


def _trained(data: dict[str, Any]) -> str:
    return f', {data["trained_tokens"] / data["tokens"]:.1%} trained' if data['trained_tokens'] else ''


def method_line(facts: dict[str, Any]) -> str:
    """The method in one line."""
    parts = [facts['name'] + (f' ({" + ".join(facts["losses"])})' if facts['losses'] else '')]
    if facts['reference']:
        parts.append(f'reference: {facts["reference"]}')
    if facts['classes']:
        names = facts['classes']
        parts.append(f'{len(names)} classes: {", ".join(names[:8])}{" …" if len(names) > 8 else ""}')
    elif facts['num_labels']:
        parts.append(f'{facts["num_labels"]} output{"s" if facts["num_labels"] != 1 else ""}')
    return '; '.join(parts)


def _print(report: dict[str, Any], args: Any, kinds: Sequence[str] = ()) -> None:
    data, steps, output = report['data'], report['steps'], report['output']
    print(f'method     {method_line(report["method"])}')
    print(f'model      {report["model"]["directory"]} ({report["model"]["type"]}, context {report["model"]["context"]})')
    if data['samples'] is not None:
        print(f'data       {data["samples"]:,} {unit_name(report["method"]["name"])}, {data["tokens"]:,} tokens{_trained(data)}; '
              f'{data["bad_rows"]} bad rows skipped, {data["too_long"]} too long')
        for reason in data['first_bad']:
            print(f'           bad: {reason}')
        p = data['percentiles']
        print(f'lengths    5 % ≤ {p[5]}, half ≤ {p[50]}, 95 % ≤ {p[95]}, longest {data["longest"]} tokens')
        widest = max(count for _, _, count in data['histogram'])
        for low, high, count in data['histogram']:
            media = data['media'].share_of(low, high) if data['media'] else None
            share = '' if media is None else f' {media:.0%} media'
            print(f'           {low:>6} – {high:<6} {count:>8,} {"█" * max(1, round(30 * count / widest))}{share}')
        if data['validation_samples']:
            print(f'validation {data["validation_samples"]:,} {unit_name(report["method"]["name"])}')
    else:
        print('data       read as it comes (--streaming or --lazy_tokenize): no counts in advance')
    per_epoch = '' if steps['per_epoch'] is None else f', {steps["per_epoch"]:,} an epoch'
    for line in media_lines(data.get('media'), report['budgets'], kinds, counted='media' in data):
        print(line)
    print(f'steps      {steps["optimizer_steps"]:,} optimizer steps{per_epoch}'
          + (f'; packed rows are {steps["packing_fill"]:.2%} full' if 'packing_fill' in steps else ''))
    for number, line in enumerate(report['parameters']['lines']):
        print(f'{"parameters" if not number else "":<10} {line}')
    for line in parts_lines(report['parameters']['parts']):
        print(line)
    if report['memory'] is not None:
        print('memory     estimate for one device, largest micro-batch (± a third):')
        for line in report['memory'].lines():
            print(f'           {line}')
    print(f'output     {output["folder"]}: {output["checkpoints"]} checkpoints'
          + (f', {output["kept"]} kept' if output['kept'] != output['checkpoints'] else '') + f', about {human(output["bytes_each"])} each')
    print('           args.json, logging.jsonl, images/' + (', runs/' if 'tensorboard' in args.report_to else ''))
