"""TrainArgs → transformers.TrainingArguments, with the decisions that depend on the machine."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from transformers import TrainingArguments

from swift.core.errors import ArgumentsError, did_you_mean
from swift.parallel.device import device_type, supports_bf16

SAME = (
    'num_train_epochs', 'max_steps', 'per_device_train_batch_size', 'per_device_eval_batch_size',
    'gradient_accumulation_steps', 'lr_scheduler_type', 'optim', 'optim_args', 'weight_decay', 'adam_beta1',
    'adam_beta2', 'adam_epsilon', 'max_grad_norm', 'torch_compile', 'full_determinism', 'eval_on_start',
    'metric_for_best_model', 'greater_is_better', 'load_best_model_at_end', 'save_strategy', 'save_steps',
    'save_only_model', 'logging_strategy', 'logging_steps', 'logging_first_step', 'run_name',
    'ddp_backend', 'ddp_timeout', 'ddp_bucket_cap_mb', 'ddp_static_graph',
)  # fmt: skip
"""Fields that mean the same here and there."""

OURS = {'label_smoothing_factor': 'the objective', 'neftune_noise_alpha': 'the forward', 'report_to': 'our callbacks'}
"""Fields of transformers that stay at their defaults there, because what is named does that work."""


@dataclass
class RunArguments(TrainingArguments):
    """transformers' arguments and what our optimizers want to know besides."""

    lorap_lr_ratio: float | None = None
    """Learning rate of the B matrices of adapters over that of the rest; None: the optimizer's own default."""
    vit_lr: float | None = None
    """Learning rate of the towers that read images and sounds; None: that of the rest."""
    aligner_lr: float | None = None
    """Learning rate of what joins them to the language model; None: that of the rest."""


def training_arguments(
    args: Any,
    output_dir: str,
    *,
    seed: int = 42,
    weights: torch.dtype = torch.float32,
    use_cache: bool = True,
    lorap_lr_ratio: float | None = None,
) -> RunArguments:
    """The TrainingArguments of a run in `output_dir`.

    `args` is the group TrainArgs, resolved (learning_rate and strategies set); `weights` the dtype of the loaded model;
    `use_cache` what its config says (kept). `args.training_args` has the last word; unknown names there raise ArgumentsError.
    """
    values: dict[str, Any] = {name: getattr(args, name) for name in SAME}
    cpu = device_type() == 'cpu'
    mixed16, mixedb = precision(args, weights)
    warmup = args.warmup_steps or args.warmup_ratio
    values.update(
        output_dir=output_dir,
        vit_lr=args.vit_lr,
        aligner_lr=args.aligner_lr,
        learning_rate=args.learning_rate if args.learning_rate is not None else 1e-4,
        lr_scheduler_kwargs=dict(args.lr_scheduler_kwargs) or None,
        warmup_steps=warmup,
        use_cpu=cpu,
        bf16=mixedb,
        fp16=mixed16,
        activation_checkpointing=args.gradient_checkpointing,
        activation_checkpointing_kwargs={'use_reentrant': False, **args.gradient_checkpointing_kwargs},
        eval_strategy=args.eval_strategy or 'no',
        eval_steps=args.eval_steps,
        ddp_find_unused_parameters=bool(args.ddp_find_unused_parameters),
        ddp_broadcast_buffers=bool(args.ddp_broadcast_buffers),
        seed=seed,
        use_cache=use_cache,
        lorap_lr_ratio=lorap_lr_ratio,
        report_to='none',
        disable_tqdm=True,
        logging_nan_inf_filter=False,
        average_tokens_across_devices=False,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    values.update(_passed_through(args.training_args))
    return RunArguments(**values)


def precision(args: Any, weights: torch.dtype) -> tuple[bool, bool]:
    """(fp16, bf16) autocast. Not given: half-precision weights train in their own kind, float32 weights in float32."""
    fp16 = args.fp16 if args.fp16 is not None else weights == torch.float16 and device_type() == 'cuda'
    bf16 = args.bf16 if args.bf16 is not None else weights == torch.bfloat16 and supports_bf16() and not fp16
    mistakes = []
    if fp16 and bf16:
        mistakes.append('--fp16 and --bf16 exclude each other; keep one')
    if fp16 and device_type() == 'cpu':
        mistakes.append('--fp16 true needs a GPU; use --bf16 true or neither')
    if bf16 and not supports_bf16():
        mistakes.append('--bf16 true: this device has no bfloat16; use --fp16 true')
    if mistakes:
        raise ArgumentsError(mistakes)
    return fp16, bf16


def _passed_through(given: dict[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(TrainingArguments) if field.init}
    mistakes = [
        f'--training_args: transformers has no training argument {name!r}; {did_you_mean(name, known)}'.rstrip()
        for name in given
        if name not in known
    ]
    mistakes += [f'--training_args: {name} is done by {OURS[name]}; give --{name} itself' for name in given if name in OURS]
    if mistakes:
        raise ArgumentsError(mistakes)
    return dict(given)
