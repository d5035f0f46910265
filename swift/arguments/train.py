"""How training runs: steps, optimizer, loss, evaluation, checkpoints, reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class TrainArgs:
    """What `swift.trainers` needs. Fields of transformers.TrainingArguments not listed here pass through by name."""

    output_dir: str = 'output'
    """Where runs go."""
    add_version: bool = True
    """Give each run a folder vN-YYYYmmdd-HHMMSS of its own below output_dir."""
    run_name: str | None = None
    """Name of the run for trackers; None: the run folder."""
    dry_run: bool = False
    """Only show what the run would do, as swift plan does."""

    num_train_epochs: float = 3.0
    """Passes over the training data."""
    max_steps: int = -1
    """Optimizer steps; -1: as many as num_train_epochs needs."""
    per_device_train_batch_size: int = 1
    """Samples (packed rows with packing) of a micro-batch on each device."""
    per_device_eval_batch_size: int = 1
    """The same for evaluation."""
    max_batch_tokens: int | None = None
    """Fill micro-batches up to this many tokens instead of a number of samples."""
    gradient_accumulation_steps: int = 1
    """Micro-batches of an optimizer step."""
    train_dataloader_shuffle: bool = True
    """Draw the samples of each epoch in a new order."""
    group_by_length: bool = False
    """Put samples of similar length into one batch."""

    learning_rate: float | None = None
    """Peak learning rate; None: 1e-4 for lora, 1e-5 for full."""
    vit_lr: float | None = None
    """Peak learning rate of the vision and audio towers of a multimodal model; None: learning_rate."""
    aligner_lr: float | None = None
    """Peak learning rate of what joins towers and language model; None: learning_rate."""
    lr_scheduler_type: str = 'linear'
    """Course of the learning rate: linear, cosine, polynomial, constant, constant_with_warmup, cosine_with_min_lr, …"""
    lr_scheduler_kwargs: dict = field(default_factory=dict)
    """Keyword arguments of the scheduler, as JSON."""
    warmup_ratio: float = 0.0
    """Share of the steps during which the learning rate rises."""
    warmup_steps: float = 0
    """Steps of the rise; below 1 a share."""
    optim: str = 'adamw_torch_fused'
    """Optimizer by transformers' names."""
    optimizer: str | None = None
    """Optimizer by registered name: lorap, muon, multimodal (vit_lr and aligner_lr), or a plugin's; None: optim."""
    optim_args: str | None = None
    """Further arguments of optim, as key=value,key=value."""
    weight_decay: float = 0.1
    """Weight decay."""
    adam_beta1: float = 0.9
    """Decay of the first moment."""
    adam_beta2: float = 0.95
    """Decay of the second moment."""
    adam_epsilon: float = 1e-8
    """Added to the denominator."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0: never."""

    loss_type: str | None = None
    """Loss by the name a plugin registered; None: cross entropy."""
    loss_kwargs: dict = field(default_factory=dict)
    """Keyword arguments of that loss, as JSON."""
    label_smoothing_factor: float = 0.0
    """Share of the target probability spread over the vocabulary."""
    z_loss_coef: float = 0.0
    """Weight of the squared log-partition penalty."""
    enable_dft_loss: bool = False
    """Weigh each token's loss by its probability (dynamic fine-tuning)."""
    enable_channel_loss: bool = False
    """Log the loss of each channel of the data on its own."""
    neftune_noise_alpha: float | None = None
    """Noise on the input embeddings (NEFTune)."""

    bf16: bool | None = None
    """Mixed precision in bfloat16; None: when the weights are bfloat16 and the device has it."""
    fp16: bool | None = None
    """Mixed precision in float16 with loss scaling; None: when the weights are float16, on a GPU."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    vit_gradient_checkpointing: bool | None = None
    """The same for the vision and audio towers of a multimodal model; None: as gradient_checkpointing."""
    gradient_checkpointing_kwargs: dict = field(default_factory=dict)
    """Keyword arguments of torch.utils.checkpoint, as JSON."""
    torch_compile: bool = False
    """Compile the model."""
    full_determinism: bool = False
    """Only deterministic kernels (slower)."""

    eval_strategy: Literal['no', 'steps', 'epoch'] | None = None
    """When to evaluate; None: as save_strategy when there is validation data."""
    eval_steps: float | None = None
    """Steps between evaluations (below 1 a share of the run); None: save_steps."""
    eval_on_start: bool = False
    """Evaluate before the first step."""
    predict_with_generate: bool = False
    """Evaluate by generating answers and comparing them."""
    eval_metric: str | None = None
    """Metric by registered name; None: acc, or rouge and BLEU with predict_with_generate."""
    acc_strategy: Literal['token', 'seq'] = 'token'
    """Count accuracy by tokens or by whole answers."""
    metric_for_best_model: str | None = None
    """Metric that decides the best checkpoint; None: loss, or rouge-l with predict_with_generate."""
    greater_is_better: bool | None = None
    """Whether that metric should rise; None: by its name."""
    load_best_model_at_end: bool = False
    """End with the weights of the best checkpoint."""
    early_stop_interval: int | None = None
    """Stop after this many evaluations without improvement."""

    save_strategy: Literal['no', 'steps', 'epoch', 'best'] = 'steps'
    """When to save."""
    save_steps: float = 500
    """Steps between checkpoints (below 1 a share of the run)."""
    save_total_limit: int | None = None
    """Checkpoints kept; the best and the last are never deleted."""
    save_only_model: bool = False
    """Save weights without optimizer, scheduler and random states (such a checkpoint can't be resumed exactly)."""
    max_shard_size: str = '5GB'
    """Largest weight file."""
    create_checkpoint_symlink: bool = False
    """Link the best and the last checkpoint as best and last."""
    resume_from_checkpoint: str | None = field(default=None, metadata={'bare': 'true'})
    """Continue a run exactly: a checkpoint, a run or output directory (its last complete one), or true: the last run in output_dir."""
    resume_only_model: bool = False
    """With resume_from_checkpoint: take the weights only and start at step 0."""
    push_to_hub: bool = False
    """Upload the last checkpoint when training ends."""
    hub_model_id: str | None = None
    """Repository for push_to_hub."""
    hub_private_repo: bool = False
    """Create that repository private."""

    logging_strategy: Literal['no', 'steps', 'epoch'] = 'steps'
    """When to log."""
    logging_steps: float = 5
    """Steps between log lines (below 1 a share of the run)."""
    logging_first_step: bool = True
    """Log the first step too."""
    logging_dir: str | None = None
    """TensorBoard folder; None: runs in the run folder."""
    report_to: list[str] = field(default_factory=lambda: ['tensorboard'])
    """Trackers: tensorboard, wandb, mlflow, swanlab, trackio, none."""
    wandb_project: str | None = None
    """Project for wandb."""
    mlflow_tracking_uri: str | None = None
    """Server or folder for mlflow."""
    swanlab_project: str | None = None
    """Project for swanlab."""
    swanlab_workspace: str | None = None
    """Workspace for swanlab."""
    swanlab_exp_name: str | None = None
    """Experiment name for swanlab; None: run_name."""
    swanlab_mode: Literal['cloud', 'local', 'offline', 'disabled'] = 'cloud'
    """Where swanlab stores the run."""
    callbacks: list[str] = field(default_factory=list)
    """Further trainer callbacks by registered name."""

    dataloader_num_workers: int | None = None
    """Processes that load batches; None: 0 for tokenised rows, 1 for lazily tokenised or streamed ones."""
    dataloader_drop_last: bool = False
    """Drop an incomplete last batch."""
    ddp_backend: str | None = None
    """Communication backend; None: nccl on GPUs, gloo on CPUs, hccl on NPUs."""
    ddp_timeout: int = 18000000
    """Seconds that a collective may take."""
    ddp_find_unused_parameters: bool | None = None
    """DistributedDataParallel looks for parameters without gradient; None: no."""
    ddp_bucket_cap_mb: int | None = None
    """Bucket size of DistributedDataParallel in MiB."""
    ddp_broadcast_buffers: bool | None = None
    """DistributedDataParallel broadcasts buffers; None: no."""
    ddp_static_graph: bool | None = None
    """DistributedDataParallel may assume the same graph each step."""
    training_args: dict = field(default_factory=dict)
    """Further fields of transformers.TrainingArguments, as JSON; giving such a field as a flag does the same."""
