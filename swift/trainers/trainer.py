"""The one Trainer: transformers' loop, with our data, our loss and our checkpoints put in through its hooks.

With `objective` it trains on a BatchLoader: the weights of all micro-batches of an optimizer step are added up over
accumulation and processes before the first backward, and every sum of losses is divided by that once. Without, it is
transformers' Trainer as ever, except that a `compute_loss(model, inputs, return_outputs=False)` of a subclass is accepted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from itertools import islice
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.trainer_utils import EvalLoopOutput

from swift.core.errors import SwiftError
from swift.core.types import Actor, Actors, Batch, BatchLoader
from swift.objectives.base import Objective
from swift.parallel import group
from swift.trainers.callbacks.learning_rate import KeepLearningRate, part_rates
from swift.trainers.feed import Feed, MicroBatch, sized
from swift.trainers.forward import ModelActor, Plan
from swift.trainers.media import idle, tower_parameters
from swift.trainers.meter import Meter
from swift.trainers.own import aside, load_own, own_rate, save_own
from swift.tuners.restore import restore_weights


class Trainer(transformers.Trainer):
    """Trains `model` by `objective`.

    `train_loader`, `eval_loaders` (one or by name): where micro-batches come from. `plan`: how the model is run
    (`selfcheck.plan`). `others`: actors of further roles by name (`reference`, …). `save_checkpoint(trainer)` writes a
    checkpoint and `save_weights(model, folder)` its weights; None: as transformers does. `resume(trainer, checkpoint)`
    puts `train_loader` to its saved position and returns whether it could. `make_optimizer(args, trainer)` returns an
    object with `create_optimizer()` and `create_scheduler(steps, optimizer)`. `judge(step)` returns further metrics of an
    evaluation. Everything else is transformers'.
    """

    def __init__(
        self,
        *args: Any,
        objective: Objective | None = None,
        train_loader: BatchLoader | None = None,
        eval_loaders: BatchLoader | dict[str, BatchLoader] | None = None,
        plan: Plan | None = None,
        others: Mapping[str, Actor] | None = None,
        noise: float | None = None,
        save_checkpoint: Callable[[Trainer], str] | None = None,
        save_weights: Callable[[nn.Module, str], None] | None = None,
        resume: Callable[[Trainer, str], bool] | None = None,
        make_optimizer: Callable[[Any, Trainer], Any] | None = None,
        judge: Callable[[int], dict[str, float]] | None = None,
        **kwargs: Any,
    ):
        if objective is not None:
            kwargs.update(train_dataset=train_loader, eval_dataset=eval_loaders)
        super().__init__(*args, **kwargs)
        self.objective = objective
        self.plan = plan or Plan()
        self.others = dict(others or {})
        self.noise = noise
        self.meter = Meter()
        self._write_checkpoint, self._write_weights, self._restore = save_checkpoint, save_weights, resume
        self._judge = judge
        self._maker = make_optimizer(self.args, self) if make_optimizer else None
        self._cast: tuple[nn.Module, Actors] | None = None
        self._micro: list[tuple[Tensor, Batch]] = []
        self._step_weight: Tensor | None = None
        self._skipped = 0
        self._draws_from: str | None = None
        self._towers = tower_parameters(self.model) if objective is not None else []
        if objective is not None:
            self.model_accepts_loss_kwargs = True  # says to the loop: divided over the whole step already
            self._matrix_size = sum(p.numel() for p in self.model.parameters()) - sum(
                m.weight.numel() for m in self.model.modules() if isinstance(m, nn.Embedding)
            )
        else:
            self.add_callback(KeepLearningRate())  # a callback's change lasts, as it does in the commands

    def __init_subclass__(cls, **kwargs: Any):
        """A subclass whose compute_loss knows no num_items_in_batch returns a mean over its micro-batch."""
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get('compute_loss')
        if own is not None and not _takes(own, 'num_items_in_batch'):
            cls.compute_loss = _without_items(own)
            cls.loss_is_scaled_for_ga = False

    # ---- data

    def get_train_dataloader(self) -> Any:
        """Our loader as it is: already this process's share, in its order."""
        if self.objective is None:
            return super().get_train_dataloader()
        return Feed(self.train_dataset, self._skipped)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The loader of one evaluation set."""
        if self.objective is None:
            return super().get_eval_dataloader(eval_dataset)
        chosen = self.eval_dataset if eval_dataset is None else eval_dataset
        return Feed(self.eval_dataset[chosen] if isinstance(chosen, str) else chosen)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """The micro-batches of one optimizer step, on the device, and their weight over all processes."""
        if self.objective is None:
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        batches = list(islice(epoch_iterator, num_batches))
        if not batches:
            return [], None
        weight = torch.as_tensor(sum(self.objective.weight(batch) for batch in batches), dtype=torch.float32)
        self._step_weight = self._total(weight.to(device)).clamp(min=1e-8)
        self.meter.count_tokens(sum(int(b.lengths.sum()) for b in batches if not b.extra.get('filler')))
        batches = [batch.to(device, non_blocking=True) for batch in batches]
        if self._draws_from is not None:
            self._load_rng_state(self._draws_from)
        self.model_wrapped.train()  # the loop does so with the first micro-batch; what `prepare` sees must be the same model
        self._prepare(batches, self._actors(self.model_wrapped))
        return [MicroBatch(batch, self.model) for batch in batches], self._step_weight

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Once in a resumed run, before the first step is prepared: the loop itself does it after that, but `prepare` may draw."""
        if self.objective is None or self._draws_from is not None:
            self._draws_from = None
            super()._load_rng_state(checkpoint)

    def _prepare(self, batches: list[Batch], actors: Actors) -> None:
        with torch.no_grad(), self.accelerator.autocast():
            self.objective.prepare(batches, actors, group.gather_rows)

    def _total(self, value: Tensor) -> Tensor:
        return self.accelerator.reduce(value, 'sum') if self.args.world_size > 1 else value

    # ---- loss

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One forward and backward; after the last of an optimizer step, a loss that is no number ends the training."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.objective is not None:
            self._micro.append((loss, inputs.batch))
            if self.accelerator.sync_gradients:
                self._stop_unless_finite()
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This micro-batch's share of the mean loss over the whole optimizer step.

        DistributedDataParallel and its kin average gradients over processes, so the share is multiplied by their number.
        Called by a subclass without `num_items_in_batch`, it returns what becomes that share once the training loop has
        divided it by the accumulation steps.
        """
        if self.objective is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        with self.accelerator.autocast():
            loss = self.objective.loss(inputs.batch, self._actors(model))
        filler = inputs.batch.extra.get('filler')
        if not filler:
            self.meter.add(loss.metrics)
        weight, scale = num_items_in_batch, self.args.world_size
        if weight is None:
            weight, scale = self._step_weight, scale * self.current_gradient_accumulation_steps
        share = loss.sum * (0.0 if filler else scale / weight)
        if self._towers:
            share = share + idle(self._towers)
        return (share, {'loss': share}) if return_outputs else share

    def _actors(self, model: nn.Module) -> Actors:
        if self._cast is None or self._cast[0] is not model:
            self._cast = (model, Actors(ModelActor(model, self.plan, noise=self.noise), **self.others))
        return self._cast[1]

    def _stop_unless_finite(self) -> None:
        """The only time that the loop itself waits for the device in a step."""
        micro, self._micro = self._micro, []
        losses = torch.stack([loss.float() for loss, _ in micro])
        if bool(losses.isfinite().all()):
            return
        bad = [batch for value, (_, batch) in zip(losses.tolist(), micro, strict=True) if value - value != 0]
        rows = list(dict.fromkeys(source or 'a row without a name' for batch in bad for source in batch.sources or [None]))
        shown = ', '.join(rows[:8]) + (f' and {len(rows) - 8} more' if len(rows) > 8 else '')
        raise SwiftError(
            f'the loss is not a number at step {self.state.global_step + 1}; the micro-batch holds {shown};',
            'look at these rows, lower --learning_rate, or train in float32 or bfloat16 instead of float16',
        )

    # ---- evaluation

    def evaluation_loop(
        self, dataloader: Any, description: str, prediction_loss_only: bool | None = None, ignore_keys: Any = None,
        metric_key_prefix: str = 'eval',
    ) -> EvalLoopOutput:
        """Mean loss per unit of weight, and the objective's metrics; no logits are kept or gathered."""
        if self.objective is None:
            return super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        self.model.eval()
        meter, total, samples = Meter(), torch.zeros(2, dtype=torch.float32, device=self.args.device), 0
        outputs: dict[str, list[Tensor]] = {}
        actors = Actors(ModelActor(self.model, self.plan), **self.others)
        with self.meter.paused(), torch.no_grad():
            for batch in dataloader:
                batch = batch.to(self.args.device, non_blocking=True)
                self._prepare([batch], actors)
                with self.accelerator.autocast():
                    loss = self.objective.loss(batch, actors)
                if not batch.extra.get('filler'):
                    meter.add(loss.metrics)
                    total += torch.stack([loss.sum.float(), torch.as_tensor(self.objective.weight(batch)).to(total)])
                    samples += len(batch.sample_lengths or batch.lengths)
                    for name, values in loss.outputs.items():
                        outputs.setdefault(name, []).append(values.cpu())
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            value, weight = self._total(total).tolist()
            if not weight:
                raise SwiftError('nothing in the evaluation data is trained or judged;', 'check --val_dataset and --max_length')
            found = {**meter.drain(), **self._measured(outputs), **(self._judge(self.state.global_step) if self._judge else {})}
            means = {f'{metric_key_prefix}_{name}': mean for name, mean in found.items()}
        metrics = {f'{metric_key_prefix}_loss': value / weight, **means}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=sum(group.gather(samples)))

    def _measured(self, outputs: dict[str, list[Tensor]]) -> dict[str, float]:
        """The objective's metrics over the outputs of all batches of all processes."""
        joined: dict[str, list[Tensor]] = {}
        for part in group.gather({name: torch.cat(values) for name, values in outputs.items()}):
            for name, values in part.items():
                joined.setdefault(name, []).append(values)
        return self.objective.measure({name: torch.cat(values) for name, values in joined.items()})

    # ---- around the loop

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train, from the start or from a checkpoint (a path) with the data where it was."""
        if self.objective is not None and isinstance(resume_from_checkpoint, str):
            self._draws_from = resume_from_checkpoint
            if self._restore:
                self._skipped = self._go_to(resume_from_checkpoint)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _go_to(self, checkpoint: str) -> int:
        """Put the loader to where the checkpoint was written; the number of micro-batches the loop is going to discard."""
        restored = self._restore(self, checkpoint)
        step = transformers.TrainerState.load_from_json(f'{checkpoint}/trainer_state.json').global_step
        loader, accumulation = self.train_dataset, self.args.gradient_accumulation_steps
        if not sized(loader):
            return step * accumulation
        steps_per_epoch = max(-(-len(loader) // accumulation), 1)
        if not restored:
            loader.set_epoch(step // steps_per_epoch)
        return step % steps_per_epoch * accumulation

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """By the registered maker, else transformers' choice."""
        if self.optimizer is not None:
            return self.optimizer
        if self._maker is None:
            super().create_optimizer() if model is None else super().create_optimizer(model)
        else:
            self.optimizer = self._maker.create_optimizer()
        if self.objective is not None and self.objective.module is not None and self.objective.module_learning_rate:
            own_rate(self.optimizer, self.objective.module, self.objective.module_learning_rate)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """By the registered maker, else transformers' choice."""
        if self._maker is not None and self.lr_scheduler is None:
            self.lr_scheduler = self._maker.create_scheduler(num_training_steps, optimizer or self.optimizer)
        return super().create_scheduler(num_training_steps, optimizer)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means since the last line, and the pace in real tokens."""
        if self.objective is not None and 'loss' in logs:
            rates = part_rates(logs.get('learning_rate'), self.optimizer)
            logs = {**logs, **rates, **self.meter.drain(), 'tokens_per_second': round(self.meter.pace(), 1)}
            if not sized(self.train_dataset):
                logs['epoch'] = self.train_dataset.epoch
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Any) -> float:
        """6 · parameters · tokens, without walking through the model at every step."""
        if self.objective is None:
            return super().floating_point_ops(inputs)
        return 6 * inputs.batch.input_ids.numel() * self._matrix_size

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self._write_checkpoint is None:
            super()._save_checkpoint(model, trial)
            return
        with self.meter.paused():
            self._write_checkpoint(self)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._write_weights is None or model is not None:  # sharded models have a loader of their own
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._fill(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self._write_weights is None or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            self._fill(self.state.best_model_checkpoint)

    def _fill(self, checkpoint: str) -> None:
        """The weights of a checkpoint into the model, and the method's own into it."""
        with aside(self.model) as own:
            restore_weights(self.model, checkpoint)
            if own is not None:
                load_own(own, checkpoint)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self._write_weights is None:
            super()._save(output_dir, state_dict)
        else:
            folder = output_dir or self.args.output_dir
            with aside(self.model) as own:
                self._write_weights(self.model, folder)
                if own is not None:
                    save_own(own, folder)


def _takes(function: Callable, name: str) -> bool:
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def _without_items(function: Callable) -> Callable:
    @wraps(function)
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return function(self, model, inputs, return_outputs)

    return compute_loss
