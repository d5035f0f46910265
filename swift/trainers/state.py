"""What a checkpoint holds besides the weights, and how a run continues from it.

    trainer = Trainer(…, save_checkpoint=lambda trainer: save_training(trainer, writer, loader), resume=resume_training)
    trainer.train(resume_from_checkpoint=checkpoint)

transformers' own resume brings back optimizer, scheduler, random states and step counters. Added here: the position in the
data, the sums behind the next log line, what callbacks count, and a proof that the weights are the saved ones.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState, TrainerState

from swift.core.dist import rank, world_size
from swift.core.errors import CheckpointError, SwiftError
from swift.core.log import get_logger
from swift.core.types import BatchLoader
from swift.parallel import group
from swift.trainers.checkpoint import CheckpointWriter
from swift.trainers.resume import what_is_missing

logger = get_logger()


@dataclass(frozen=True)
class EpochShape:
    """How transformers' loop counts an epoch: the step number in a checkpoint says where it is only for the same counts.

    (Whether the order of the data is still the same is the loader's to judge: its position carries the identity of its plan.)
    """

    gradient_accumulation_steps: int
    batches_per_epoch: int | None
    """Micro-batches of each process. None: streaming, unknown."""

    @staticmethod
    def of(args: Any, loader: BatchLoader) -> EpochShape:
        """The shape of this run; `args` are transformers' TrainingArguments."""
        try:
            length = len(loader)
        except TypeError:
            length = None
        return EpochShape(args.gradient_accumulation_steps, length)


def save_training(trainer: Any, writer: CheckpointWriter, loader: BatchLoader | None) -> str:
    """Write the checkpoint of the trainer's current step and return its path. Called on every process.

    `trainer` is a transformers Trainer: its own savers write weights, optimizer, scheduler, scaler and random states (they
    know about sharded models). `loader` None: the data has no position that could be saved. A callback with `write_part(folder)`
    and `read_part(folder)` keeps a file of its own in every checkpoint that can be resumed.
    """
    state, args = trainer.state, trainer.args
    trainer.store_flos()
    best_step = state.best_global_step
    if best_step is not None:
        best = writer.path(best_step)
        if best_step == state.global_step or os.path.isdir(best):
            state.best_model_checkpoint = best
    parts = [lambda folder: trainer.save_model(folder, _internal_call=True)]
    sharded = bool(trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled)
    if not args.save_only_model:
        parts += [trainer._save_optimizer_and_scheduler, trainer._save_scaler, trainer._save_rng_state]
        parts.append(lambda folder: _save_progress(trainer, folder, sharded))
        if loader is not None:
            parts.append(lambda folder: _save_loader(args, loader, folder))
        parts += [item.write_part for item in trainer.callback_handler.callbacks if hasattr(item, 'write_part')]
    if args.should_save:
        callbacks = [item for item in [*trainer.callback_handler.callbacks, trainer.control] if isinstance(item, ExportableState)]
        state.stateful_callbacks = TrainerState(stateful_callbacks=callbacks).stateful_callbacks
        parts.append(lambda folder: state.save_to_json(os.path.join(folder, 'trainer_state.json')))
    return writer.write(state.global_step, parts, best_step=best_step, sharded_state=sharded)


def resume_training(trainer: Any, checkpoint: str, loader: BatchLoader | None) -> bool:
    """Prepare `trainer.train(resume_from_checkpoint=checkpoint)`; returns whether the position in the data is kept.

    Raises CheckpointError when the checkpoint is incomplete, or its weights have no place in the model.
    """
    trouble = what_is_missing(checkpoint)
    if trouble is not None:
        raise CheckpointError(f'{checkpoint} is incomplete: {trouble};', 'resume from another checkpoint')
    check_weights(trainer.model, checkpoint, values=False)
    logger.info('continuing from %s', checkpoint)
    trainer.add_callback(_Restore(trainer, checkpoint))
    return loader is not None and restore_loader(checkpoint, trainer.args, loader)


class _Restore(TrainerCallback):
    """Brings back what the training loop resets at its start; does so once."""

    def __init__(self, trainer: Any, checkpoint: str):
        self.trainer, self.checkpoint = trainer, checkpoint

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The loop has loaded the weights and set its own counters by now."""
        check_weights(self.trainer.model, self.checkpoint)
        restore_callbacks(state, self.trainer.callback_handler.callbacks)
        for item in self.trainer.callback_handler.callbacks:
            if hasattr(item, 'read_part'):
                item.read_part(self.checkpoint)
        restore_progress(self.trainer, self.checkpoint)
        if state.global_step >= state.max_steps:
            logger.info('nothing is left to do: %s is step %d of %d; raise --num_train_epochs or --max_steps to go on',
                        self.checkpoint, state.global_step, state.max_steps)


def restore_loader(checkpoint: str, args: Any, loader: BatchLoader) -> bool:
    """Put the loader where the run was; False (and a line that says so) when the position can't be kept.

    It is kept as long as the data, its order and the number of samples a step are the same, also on another number of processes
    (2 × 4 = 1 × 8). Otherwise weights, optimizer, scheduler and step count continue, and the data starts an epoch anew.
    """
    reason = None
    try:
        saved = _read_position(checkpoint)
        now = EpochShape.of(args, loader)
        changed = [f'{name} {saved["shape"].get(name)} → {getattr(now, name)}'
                   for name in now.__dataclass_fields__ if saved['shape'].get(name) != getattr(now, name)]
        reason = ', '.join(changed) or None
        if reason is None:
            loader.load_state_dict(saved['position'])
    except SwiftError as error:
        reason = error.message
    reasons = [text for text in group.gather(reason) if text]
    if reasons:
        logger.warning('resumed: weights, optimizer, learning rate and step count; not the position in the data, which starts an '
                       'epoch anew (%s)', reasons[0].rstrip(';'))
    return not reasons


def restore_callbacks(state: TrainerState, callbacks: list[TrainerCallback]) -> None:
    """Give every callback that exports its state (early stopping, a user's own) what it had when the checkpoint was written.

    Only counters are restored, in place; settings such as a patience stay as this command line gives them.
    """
    for name, saved in state.stateful_callbacks.items():
        mine = [item for item in callbacks if type(item).__name__ == name and isinstance(item, ExportableState)]
        for callback, data in zip(mine, saved if isinstance(saved, list) else [saved], strict=False):
            for attribute, value in data.get('attributes', {}).items():
                setattr(callback, attribute, value)


def restore_progress(trainer: Any, checkpoint: str) -> None:
    """Bring back the sums since the last log line, so that the first line after a resume is the one it would have been.

    Call it after transformers' loop has set its own counters (on `on_train_begin`).
    """
    saved = _read_progress(checkpoint)
    if saved is not None:
        trainer._tr_loss.fill_(float.fromhex(saved['loss_since_log']))
        trainer._globalstep_last_logged = saved['last_logged_step']
        if saved.get('meter') is not None:
            trainer.meter.load_state_dict(saved['meter'], trainer.args.device)


def check_weights(model: torch.nn.Module, checkpoint: str, *, values: bool = True) -> None:
    """Compare the model's trainable weights with samples taken when the checkpoint was written (`values` False: shapes only).

    A resume that silently starts from other weights (a key that found no place, an adapter of another shape) is the worst
    kind; here it is a CheckpointError naming the first weight that differs. Rounding to another dtype is allowed.
    """
    saved = _read_progress(checkpoint)
    if saved is None or not saved.get('probe'):
        return
    parameters = dict(model.named_parameters())
    for name, (shape, sample) in saved['probe'].items():
        parameter = parameters.get(name)
        if parameter is None:
            raise CheckpointError(
                f'{checkpoint} was trained with other settings: its weight {name} does not learn in this run;',
                'resume with the tuner settings of that run (see args.json there)',
            )
        if list(parameter.shape) != shape:
            raise CheckpointError(
                f'{checkpoint} was trained with other settings: {name} has shape {shape} there and {list(parameter.shape)} here;',
                'resume with the same --lora_rank and target modules, or use --resume_only_model with the same ones',
            )
        pairs = zip(sample, _sample(parameter), strict=True) if values else ()
        if any(abs(a - b) > 0.01 * max(abs(a), abs(b)) + 1e-6 for a, b in pairs):
            raise CheckpointError(f'the weights of {checkpoint} did not arrive in the model: {name} differs;',
                                  'this is a fault of the program, not of the command; please report it')


def check_same_tuner(saved: dict[str, Any], wanted: dict[str, Any], checkpoint: str) -> None:
    """Refuse a resume whose adapter has another shape: `saved` and `wanted` are adapter settings by name (r, lora_alpha, …).

    Raises CheckpointError naming the settings that differ.
    """
    names = [name for name in wanted if name in saved and saved[name] != wanted[name]]
    if names:
        differences = ', '.join(f'{name} {saved[name]} → {wanted[name]}' for name in names)
        raise CheckpointError(
            f'--resume_from_checkpoint {checkpoint}: the adapter there was made with other settings ({differences});',
            'give the same settings, or merge it (swift merge-lora) and start a new adapter on the merged model',
        )


def _read_position(checkpoint: str) -> dict[str, Any]:
    """This process's data position; the first process's when the number of processes changed (loaders refuse what doesn't fit)."""
    for name in (_per_rank('loader_state', '.json'), 'loader_state.json', 'loader_state_0.json'):
        path = os.path.join(checkpoint, name)
        if os.path.isfile(path):
            try:
                with open(path, encoding='utf-8') as stream:
                    return json.load(stream)
            except ValueError as error:
                raise CheckpointError(f'{path} is damaged: {error};') from error
    raise CheckpointError('the checkpoint has no data position;')


def _save_loader(args: Any, loader: BatchLoader, folder: str) -> None:
    shape = EpochShape.of(args, loader)
    saved = {'shape': {name: getattr(shape, name) for name in shape.__dataclass_fields__}, 'position': loader.state_dict()}
    with open(os.path.join(folder, _per_rank('loader_state', '.json')), 'w', encoding='utf-8') as stream:
        json.dump(saved, stream)


def _save_progress(trainer: Any, folder: str, sharded: bool) -> None:
    meter = getattr(trainer, 'meter', None)
    saved = {
        'loss_since_log': float(trainer._tr_loss.item()).hex(),
        'last_logged_step': trainer._globalstep_last_logged,
        'meter': None if meter is None else meter.state_dict(),
        'probe': {} if sharded else _probe(trainer.model),
    }
    with open(os.path.join(folder, _per_rank('progress', '.json')), 'w', encoding='utf-8') as stream:
        json.dump(saved, stream)


def _read_progress(checkpoint: str) -> dict[str, Any] | None:
    path = os.path.join(checkpoint, _per_rank('progress', '.json'))
    if not os.path.isfile(path):
        return None
    with open(path, encoding='utf-8') as stream:
        return json.load(stream)


def _probe(model: torch.nn.Module, count: int = 48) -> dict[str, tuple[list[int], list[float]]]:
    """Name → shape and a few values of up to `count` trainable weights, spread evenly over the model."""
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad and value.numel()]
    step = max(1, len(named) // count)
    return {name: (list(value.shape), _sample(value)) for name, value in named[::step]}


def _sample(parameter: torch.Tensor) -> list[float]:
    flat = parameter.detach().reshape(-1)
    index = torch.linspace(0, flat.numel() - 1, min(4, flat.numel()), device=flat.device).long()
    return flat[index].float().tolist()


def _per_rank(stem: str, extension: str) -> str:
    return f'{stem}{extension}' if world_size() == 1 else f'{stem}_{rank()}{extension}'
