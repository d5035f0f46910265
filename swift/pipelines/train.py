"""`swift sft` and `swift pt`: from arguments to a trained model, room by room.

The path of a run: arguments → run folder → tokenizer and template → rows → samples → model → tuner → trainer → checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from swift.core.dist import is_master, rank, world_size
from swift.core.errors import CheckpointError, RowError, SwiftError
from swift.core.jsonl import write_jsonl
from swift.core.log import get_logger
from swift.core.startup import loaded
from swift.pipelines.base import SwiftPipeline, seed_everything

logger = get_logger()

_one_at_a_time = threading.RLock()
"""Random states, and accelerate's record of where in an accumulation it is, are the process's, not the training's: two trainings
that are started in one process, from two threads, take turns."""


def sft_main(args: Any = None) -> dict[str, Any]:
    """Supervised fine-tuning. `args`: None (sys.argv), a list of words, a mapping, or SftArguments.

    Returns last_model_checkpoint, best_model_checkpoint, best_metric, global_step, log_history, eval_loss, run_dir.
    """
    return SwiftSft(args).main()


def pretrain_main(args: Any = None) -> dict[str, Any]:
    """Pre-training on plain text; otherwise as `sft_main`."""
    return SwiftPretrain(args).main()


class SwiftSft(SwiftPipeline):
    """The pipeline of `swift sft`."""

    command = 'sft'

    def run(self) -> dict[str, Any]:
        """Train and return what came of it."""
        if self.args.dry_run:
            from swift.pipelines.plan import plan

            return plan(self.args, self.command)
        args = self.args
        if not _one_at_a_time.acquire(blocking=False):
            logger.info('another training runs in this process; this one starts when it has ended')
            _one_at_a_time.acquire()
        try:
            with loaded('torch', 'transformers.trainer', 'transformers.models.auto.modeling_auto', 'peft'):
                from swift.parallel import group
                from swift.parallel.device import device_type

                group.start_group(device_type=device_type(), backend=args.ddp_backend, timeout=args.ddp_timeout)
                return TrainingRun(args, self.command).train()
        finally:
            _one_at_a_time.release()


class SwiftPretrain(SwiftSft):
    """The pipeline of `swift pt`."""

    command = 'pt'


class TrainingRun:
    """One training, built step by step in `__init__` and started by `train()`."""

    trainer_class: Any = None
    """What makes the trainer of its parts; None: our Trainer."""

    def __init__(self, args: Any, command: str):
        from swift.arguments import Facts, resolve, save_args
        from swift.model import options
        from swift.model.load import load_model, load_processor, model_info
        from swift.parallel import group
        from swift.pipelines.data import encode_data, first_samples
        from swift.pipelines.embedding import as_trained
        from swift.pipelines.media import samples_to_check
        from swift.pipelines.methods import settle
        from swift.pipelines.templates import template_for
        from swift.trainers import own
        from swift.trainers.report import check_trackers
        from swift.trainers.resume import resolve_resume
        from swift.trainers.rundir import run_dir_for
        from swift.tuners import tuners_map

        self.command = command
        check_trackers(args.report_to)
        options.attention(args.attn_impl, (args.attn_impl or '',))
        if args.tuner_type not in tuners_map:
            tuners_map[args.tuner_type]  # raises, naming the nearest
        checkpoint = resolve_resume(args.resume_from_checkpoint, args.output_dir, only_model=args.resume_only_model)
        self.resume = None if args.resume_only_model else checkpoint
        model_args = _start_from(args, checkpoint) if args.resume_only_model and checkpoint else args
        info = model_info(model_args)
        args = resolve(args, Facts(has_validation=None, model_max_length=info.max_model_len, multimodal=info.is_multimodal))
        seed_everything(args.seed, deterministic=args.full_determinism)

        processor = load_processor(model_args)
        method = settle(args, command, info)
        args, self.objective = method.args, method.objective
        self.template = template_for(processor, args, info)
        data = encode_data(args, self.objective, self.template, splits=method.splits)
        self.first = samples_to_check(data.train, self.template, first_samples(data.train))

        home = run_dir_for(args.output_dir, args.add_version, self.resume) if is_master() else None
        self.run_dir = group.broadcast(home)
        if is_master():
            save_args(args, self.run_dir)
            self._save_validation_rows(args, data)
        logger.info('run folder: %s', self.run_dir)

        loaded = load_model(_start_from(args, checkpoint) if args.resume_only_model and checkpoint else args, for_training=True)
        self.args, self.data, self.info = args, data, loaded.info
        self.processor = as_trained(_with_template(loaded.processor, self.template), args)
        self.model = self._tuned(loaded)
        if self.objective.module is not None:
            own.attach(self.model, self.objective.module)
            if args.resume_only_model and checkpoint:
                own.load_own(self.objective.module, checkpoint)
        self.trainer = self._trainer()

    def _save_validation_rows(self, args: Any, data: Any) -> None:
        """A split that was drawn is kept, so that `swift infer --load_data_args true` answers the very same rows."""
        from swift.dataset.convert import to_row

        val = data.splits.val
        if val is not None and args.split_dataset_ratio:
            write_jsonl(os.path.join(self.run_dir, 'val_dataset.jsonl'), readable(val, lambda index: to_row(val[index])))

    # ---- the model

    def _tuned(self, loaded: Any) -> Any:
        """The model with the right weights trainable, and a line about how much of it they are."""
        from swift.tuners import coverage, load_adapter, prepare_tuner

        args, model, adapters = self.args, loaded.model, list(loaded.info.adapters)
        if adapters and args.tuner_type != 'lora':
            raise SwiftError(f'--adapters with --tuner_type {args.tuner_type}:', 'merge the adapter first (swift merge-lora), or train lora')
        if len(adapters) > 1:
            raise SwiftError(f'--adapters: one adapter is trained further at a time, got {len(adapters)};', 'give one')
        if adapters:
            model = load_adapter(model, adapters, trainable=True)
        else:
            model = prepare_tuner(model, args, info=loaded.info)
        if self.resume is not None:
            self._check_adapter(model)
        for line in str(coverage(model)).splitlines():
            logger.info(line)
        return model

    def _check_adapter(self, model: Any) -> None:
        """A resumed adapter must have the shape that this command line asks for."""
        from swift.trainers.state import check_same_tuner
        from swift.tuners import is_adapter

        path = os.path.join(self.resume, 'adapter_config.json')
        if not is_adapter(model):
            if os.path.isfile(path):
                raise CheckpointError(f'--resume_from_checkpoint {self.resume} holds an adapter;', 'resume it with --tuner_type lora')
            return
        if not os.path.isfile(path):
            raise CheckpointError(f'--resume_from_checkpoint {self.resume} holds a whole model;', 'resume it with --tuner_type full')
        from swift.tuners.peft import adapter_settings

        config = next(iter(model.peft_config.values()))
        wanted = {name: getattr(config, name) for name in ('r', 'lora_alpha', 'use_rslora', 'use_dora', 'bias')}
        check_same_tuner(adapter_settings(self.resume), wanted, self.resume)

    # ---- the trainer

    def _trainer(self) -> Any:
        from swift.parallel import group
        from swift.trainers import selfcheck
        from swift.trainers.callbacks.build import build_callbacks
        from swift.trainers.checkpoint import CheckpointWriter
        from swift.trainers.factory import build_trainer

        args, model = self.args, self.model
        plan = selfcheck.plan(model, self.first, flat=args.padding_free is not False)
        plan, reference = self._reference(plan)
        if args.padding_free and not plan.flat:
            raise SwiftError(f'--padding_free true: {plan.reason};', 'leave it unset to train on padded rows')
        if plan.alone and self.objective.rows and args.per_device_train_batch_size > 1:
            raise SwiftError(
                f'--loss_type {args.loss_type} sees padded rows, which change what this model computes;',
                'train with --per_device_train_batch_size 1',
            )
        train_loader, eval_loader = self._loaders(plan.flat)
        args_json = group.broadcast(_read(os.path.join(self.run_dir, 'args.json')) if is_master() else None)
        writer = CheckpointWriter(
            self.run_dir,
            save_total_limit=args.save_total_limit,
            texts={'args.json': args_json},
            facts={'template': self.template.fingerprint},
            links=args.create_checkpoint_symlink,
            save_on_each_node=bool(args.training_args.get('save_on_each_node')),
        )
        return build_trainer(
            model,
            args,
            self.objective,
            train_loader,
            run_dir=self.run_dir,
            eval_loaders=eval_loader,
            plan=plan,
            others=reference.actors,
            callbacks=[*build_callbacks(args, self.run_dir, config=args.to_dict(), command=self.command), *reference.callbacks],
            writer=writer,
            save_weights=self._save_weights,
            lorap_lr_ratio=args.lorap_lr_ratio if args.tuner_type == 'lora' else None,
            judge=self._judge(),
            seed=args.seed + rank(),
            trainer_class=self.trainer_class,
        )

    def _reference(self, plan: Any) -> tuple[Any, Any]:
        """(how the models are run, the reference): both models must be run alike. With stored log-probabilities, the samples carry them."""
        from swift.pipelines.reference import NO_REFERENCE, build_reference

        if 'reference' not in self.objective.roles:
            return plan, NO_REFERENCE
        reference = build_reference(self.args, self.model, plan, self.first, self.data, self.objective, self.template)
        self.data = reference.data
        return reference.plan, reference

    def _judge(self) -> Any:
        """What an evaluation does beside the losses: `step → metrics`; None: nothing."""
        judges = [self._generation(), self._questions()]
        if not any(judges):
            return None
        return lambda step: {name: value for judge in judges if judge for name, value in judge(step).items()}

    def _questions(self) -> Any:
        """`--eval_dataset`: questions with known answers; None without."""
        if not self.args.eval_dataset:
            return None
        from swift.pipelines.eval_training import question_eval

        return question_eval(self.model, self.template, self.args, self.run_dir)

    def _generation(self) -> Any:
        """`--predict_with_generate`: what compares generated answers with the validation rows' own; None without."""
        if not self.args.predict_with_generate:
            return None
        if self.data.splits.val is None:
            raise SwiftError('--predict_with_generate true needs validation rows;', 'give --val_dataset or --split_dataset_ratio')
        from swift.pipelines.answers import answerer
        from swift.trainers.generation import GenerationEval

        val = self.data.splits.val
        rows = list(readable(val, val.__getitem__))
        return GenerationEval(answerer(self.model, self.template, self.args), rows, self.run_dir, self.args.eval_metric)

    def _save_weights(self, model: Any, folder: str) -> None:
        """What was trained, and the tokenizer, into a checkpoint; without transformers' bar for each shard."""
        from transformers.utils import logging

        from swift.pipelines.embedding import write_beside
        from swift.tuners import save_tuner

        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            save_tuner(model, folder, processor=self.processor, max_shard_size=self.args.max_shard_size)
            write_beside(folder, model, self.args)
        finally:
            if shown:
                logging.enable_progress_bar()

    def _loaders(self, flat: bool) -> tuple[Any, Any]:
        """Micro-batches to train on and to evaluate on."""
        from functools import partial

        from swift.dataset.bad_rows import BadRows
        from swift.dataset.loader import make_loader
        from swift.pipelines.media import ReadingCollate

        args = self.args
        bad = BadRows(strict=args.strict)
        collate = ReadingCollate(self.template, partial(self.objective.collate, padded=not flat), bad)
        where = dict(rank=rank(), world_size=world_size(), seed=args.data_seed)
        train = make_loader(
            self.data.train,
            collate,
            batch_size=args.per_device_train_batch_size,
            packing_length=args.packing_length if args.packing else None,
            oversize=self.objective.several,
            max_batch_tokens=args.max_batch_tokens,
            shuffle=args.train_dataloader_shuffle,
            drop_last=args.dataloader_drop_last,
            num_workers=args.dataloader_num_workers,
            group_by_length=args.group_by_length,
            **where,
        )
        if self.data.val is None:
            return train, None
        return train, make_loader(self.data.val, collate, batch_size=args.per_device_eval_batch_size, shuffle=False, **where)

    def train(self) -> dict[str, Any]:
        """Run the loop; returns the summary that is also the last line of logging.jsonl."""
        from swift.trainers.callbacks.record import summary

        self.trainer.train(resume_from_checkpoint=self.resume)
        result = {**summary(self.trainer.state, self.run_dir), 'run_dir': self.run_dir}
        if is_master():
            logger.info('last checkpoint: %s', result['last_model_checkpoint'])
            if result['best_model_checkpoint']:
                logger.info('best checkpoint: %s (%s %s)', result['best_model_checkpoint'], self.args.metric_for_best_model, result['best_metric'])
            if self.args.push_to_hub and result['last_model_checkpoint']:
                from swift.export.hub import push

                push(result['last_model_checkpoint'], self.args, f'{result["global_step"]} steps of swift {self.command}')
        return result


def readable(source: Any, read: Callable[[int], Any]) -> Iterator[Any]:
    """`read(index)` for every row that can be read; bad rows were counted and shown when the data was encoded."""
    for index in range(len(source)):
        with contextlib.suppress(RowError):
            yield read(index)


def _start_from(args: Any, checkpoint: str) -> Any:
    """`--resume_only_model`: the model arguments that load the checkpoint's weights."""
    if os.path.isfile(os.path.join(checkpoint, 'adapter_config.json')):
        return replace(args, adapters=[checkpoint])
    return replace(args, model=checkpoint, adapters=[])


def _with_template(processor: Any, template: Any) -> Any:
    """The processor as checkpoints carry it: with the very chat template that trained the model."""
    if template.use_chat_template and template.name is not None:
        processor.chat_template = template.chat_template
        if hasattr(processor, 'tokenizer'):
            processor.tokenizer.chat_template = template.chat_template
    return processor


def _read(path: str) -> str:
    with open(path, encoding='utf-8') as file:
        return file.read()
