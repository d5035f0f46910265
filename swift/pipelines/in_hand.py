"""Trainers for a model that a program has in hand: the path of a command, from the rows on.

    trainer = DPOTrainer(model=model, args=DPOConfig(output_dir='out', beta=0.2), train_dataset=rows, processing_class=tokenizer)
    trainer.train()

The model is trained as it is given: all parameters that require gradients, or the adapter that is on it (`Swift.prepare_model`, or
`peft_config=`). The config takes the flags of the command by name; those that choose the model, the data or the tuner are the
trainer's arguments here. Everything else (encoding, batches, loss, checkpoints, logs) is what the command does.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any, ClassVar

from swift.arguments import Facts, ModelArgs, TunerArgs, parse_args, resolve, save_args
from swift.arguments.methods import method_of
from swift.core.dist import is_master
from swift.core.errors import ArgumentsError, SwiftError
from swift.core.heads import BARE, SEQUENCE, head_kind
from swift.pipelines.train import TrainingRun
from swift.trainers.trainer import Trainer

ROWS = {'dataset', 'val_dataset', 'split_dataset_ratio', 'streaming', 'interleave_prob', 'stopping_strategy', 'dataset_dir',
        'custom_dataset_info', 'columns', 'model_name', 'model_author', 'download_mode', 'shuffle_buffer_size'}  # fmt: skip
"""Flags about where rows come from; here they are handed in."""
REFERENCE = {'ref_model', 'ref_adapters', 'ref_model_type', 'ref_model_revision', 'precompute_ref_log_probs', 'sync_ref_model',
             'ref_model_sync_steps', 'ref_model_mixup_alpha'}  # fmt: skip
ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(sorted({f.name for f in fields(ModelArgs)} - {'class_names', 'num_labels', 'problem_type', 'task_type'}),
                    'the model is handed to the trainer, loaded'),
    **dict.fromkeys(sorted({f.name for f in fields(TunerArgs)}),
                    'the model is trained as it is given: wrap it with Swift.prepare_model, or give peft_config to the trainer'),
    **dict.fromkeys(sorted(ROWS), 'rows are handed to the trainer: train_dataset and eval_dataset'),
    **dict.fromkeys(sorted(REFERENCE), 'the reference is handed to the trainer: ref_model'),
    **dict.fromkeys(('resume_from_checkpoint', 'resume_only_model'), 'give the checkpoint to train(resume_from_checkpoint=…)'),
    **dict.fromkeys(('push_to_hub', 'hub_model_id', 'hub_private_repo'), 'swift export uploads a checkpoint'),
    'dry_run': 'swift plan shows what a command would do',
}  # fmt: skip
"""Flag → why a config here does not take it, and what does."""


class Config:
    """The flags of one training method, by name; a mistake in them is told at once, as on the command line."""

    command: ClassVar[str] = 'sft'
    method: ClassVar[Mapping[str, Any]] = {}
    """The flags that choose the method."""

    def __init__(self, output_dir: str | os.PathLike = 'output', **flags: Any):
        self.flags = {'output_dir': os.fspath(output_dir), 'add_version': False, **flags}
        mistakes = [f'{name} is no flag of {type(self).__name__}: {ELSEWHERE[name]}' for name in flags if name in ELSEWHERE]
        mistakes += [f'{name} is settled by {type(self).__name__}' for name in flags if name in self.method]
        if mistakes:
            raise ArgumentsError(mistakes)
        self.settled()

    def settled(self, model: str = 'in memory', *, tuner_type: str = 'full', validates: bool = True) -> Any:
        """The arguments of the command, every default derived. `model`: the directory or id that the model came from."""
        rows = {'dataset': ['in memory'], **({'val_dataset': ['in memory']} if validates else {})}
        return parse_args(self.command, {**self.flags, **self.method, **rows, 'model': model, 'tuner_type': tuner_type}, quiet=True)

    def __getattr__(self, name: str) -> Any:
        if name == 'flags' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.settled(), name)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({", ".join(f"{name}={value!r}" for name, value in self.flags.items())})'


class MethodTrainer(Trainer):
    """Base of the trainers below: our Trainer, built from a model, rows and a config.

    `args`: the method's config, or a mapping of flags. `processing_class`: the tokenizer (or processor). `train_dataset`,
    `eval_dataset`: rows as the command reads them, in a list, a Hugging Face Dataset, or the name of a file. `ref_model`: the
    model that the policy is compared with; None: the model as it is now, or
    without its adapter. `peft_config`: put an adapter on the model first.
    Raises SwiftError for what does not fit.
    """

    config_class: ClassVar[type[Config]] = Config

    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: Config | Mapping[str, Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        template: Any = None,
        peft_config: Any = None,
        callbacks: Sequence[Any] = (),
    ):
        if isinstance(model, str):
            raise SwiftError(f'model={model!r}: these trainers take a loaded model;', 'load it, or use the command (rlhf_main)')
        if args is None or isinstance(args, Mapping):
            args = self.config_class(**(args or {}))
        if not isinstance(args, self.config_class):
            raise SwiftError(f'args must be a {self.config_class.__name__}, not {type(args).__name__};', 'or a mapping of its flags')
        if peft_config is not None:
            from swift.tuners.face import Swift

            model = Swift.prepare_model(model, peft_config)
        run = _Run(self, args, model, ref_model, train_dataset, eval_dataset, processing_class, template)
        run.build(self._begin)
        self.run_dir = run.run_dir
        for callback in callbacks:
            self.add_callback(callback)

    def _begin(self, *args: Any, **kwargs: Any) -> MethodTrainer:
        Trainer.__init__(self, *args, **kwargs)
        return self


class _Run(TrainingRun):
    """The steps of a command's training that are left when the model is there."""

    def __init__(self, trainer: Any, config: Config, model: Any, ref_model: Any, train: Any, val: Any, processor: Any, template: Any):
        from swift.dataset.bad_rows import BadRows
        from swift.dataset.load import Splits
        from swift.objectives import get_objective
        from swift.parallel import group
        from swift.parallel.device import device_type
        from swift.pipelines.data import encode_data, first_samples
        from swift.pipelines.media import samples_to_check
        from swift.template import get_template
        from swift.tuners import is_adapter

        owner = type(trainer).__name__
        if processor is None:
            raise SwiftError(f'{owner} needs the tokenizer;', 'give processing_class=tokenizer')
        if train is None:
            raise SwiftError(f'{owner} has nothing to train on;', 'give train_dataset=rows')
        base = model.get_base_model() if hasattr(model, 'get_base_model') else model
        args = config.settled(base.config._name_or_path or 'in memory', tuner_type='lora' if is_adapter(model) else 'full', validates=val is not None)
        name = method_of(args.command, vars(args))
        _check_head(name, base, owner)
        group.start_group(device_type=device_type(), backend=args.ddp_backend, timeout=args.ddp_timeout)
        args = resolve(args, Facts(val is not None, context_of(base.config), pooling=pooling_of(base) if name == 'embedding' else None))
        self.command, self.args, self.resume, self.info = args.command, args, None, None
        self.model, self.ref_model, self.processor = model, ref_model, processor
        self.objective = get_objective(name, args)
        if ref_model is not None and 'reference' not in self.objective.roles:
            raise SwiftError(f'{owner} compares with no reference;', 'leave ref_model away')
        self.template = template or get_template(processor, args)
        splits = Splits(rows_of(train, 'train_dataset'), None if val is None else rows_of(val, 'eval_dataset'), BadRows(strict=args.strict))
        if args.dataset_shuffle:
            splits = replace(splits, train=splits.train.shuffled(args.data_seed))
        self.data = encode_data(args, self.objective, self.template, splits=splits)
        self.first = samples_to_check(self.data.train, self.template, first_samples(self.data.train))
        self.run_dir = self._folder()

    def _folder(self) -> str:
        from swift.parallel import group
        from swift.trainers.rundir import run_dir_for

        folder = group.broadcast(run_dir_for(self.args.output_dir, self.args.add_version, None) if is_master() else None)
        if is_master():
            save_args(self.args, folder)
        return folder

    def build(self, trainer_class: Any) -> Any:
        """The trainer; `trainer_class` gets what our Trainer's constructor does."""
        self.trainer_class = trainer_class
        return self._trainer()

    def _reference(self, plan: Any) -> tuple[Any, Any]:
        """The reference that was handed in, the model as its adapter found it, or a frozen copy of the model."""
        from swift.pipelines.reference import NO_REFERENCE, Maker, Reference
        from swift.trainers import selfcheck

        if 'reference' not in self.objective.roles:
            return plan, NO_REFERENCE
        maker = Maker(self.args, self.args, self.model, plan, self.first)
        view = maker.inside() if self.ref_model is None else None
        if view is not None:
            return plan, Reference(plan, self.data, {'reference': maker.actor(self.model, plan, view)})
        reference = copy.deepcopy(self.model) if self.ref_model is None else self.ref_model
        reference = reference.to(next(self.model.parameters()).device).eval().requires_grad_(False)
        own = selfcheck.plan(reference, self.first, flat=plan.flat)
        plan = maker.common(own)
        return plan, Reference(plan, self.data, {'reference': maker.actor(reference, own)})


def rows_of(rows: Any, name: str) -> Any:
    """Conversations of rows in memory, or of what `--dataset` would read when it is a text."""
    from swift.dataset import AutoPreprocessor, Conversations, DatasetLoader
    from swift.dataset.memory import MemoryRows
    from swift.dataset.sources import Rows

    if isinstance(rows, Conversations):
        return rows
    if isinstance(rows, (str, os.PathLike)):
        return DatasetLoader.load(os.fspath(rows))
    if not hasattr(rows, '__len__') or not hasattr(rows, '__getitem__'):
        raise SwiftError(f'{name} must be rows with len() and [i], not {type(rows).__name__};', 'a list of dicts, a Dataset, or a file')
    return Conversations.of(Rows(name, [MemoryRows(rows, name)], AutoPreprocessor()))


def _check_head(method: str, base: Any, owner: str) -> None:
    """Raises SwiftError when the model gives other outputs than the method learns from."""
    kind = head_kind(base)
    if method in ('rm', 'reranker') and (kind != SEQUENCE or base.config.num_labels != 1):
        raise SwiftError(f'{owner} needs a model with one score;', 'load it with AutoModelForSequenceClassification and num_labels=1')
    if method not in ('rm', 'reranker', 'embedding') and (kind == SEQUENCE or kind == BARE):
        raise SwiftError(f'{owner} needs a model that predicts tokens, not {type(base).__name__};', 'load it with AutoModelForCausalLM')


def context_of(config: Any) -> int | None:
    """The longest context that a configuration names."""
    text = config.get_text_config() if hasattr(config, 'get_text_config') else config
    names = ('max_position_embeddings', 'n_positions', 'max_seq_len')
    return next((value for name in names if isinstance(value := getattr(text, name, None), int)), None)


def pooling_of(base: Any) -> str:
    """How an embedding model makes one vector of a text when nobody said it: `last` for decoders, `mean` for encoders."""
    from swift.model.sentence_transformers import is_encoder

    config = base.config
    facts = SimpleNamespace(config=config.to_dict(), architectures=(type(base).__name__,), config_type=config.model_type)
    return 'mean' if is_encoder(facts) else 'last'


# ---- one config and one trainer a method


class DPOConfig(Config):
    """Flags of `swift rlhf --rlhf_type dpo`."""

    command, method = 'rlhf', {'rlhf_type': 'dpo'}


class KTOConfig(Config):
    """Flags of `swift rlhf --rlhf_type kto`."""

    command, method = 'rlhf', {'rlhf_type': 'kto'}


class ORPOConfig(Config):
    """Flags of `swift rlhf --rlhf_type orpo`."""

    command, method = 'rlhf', {'rlhf_type': 'orpo'}


class CPOConfig(Config):
    """Flags of `swift rlhf --rlhf_type cpo`."""

    command, method = 'rlhf', {'rlhf_type': 'cpo'}


class SimPOConfig(Config):
    """Flags of `swift rlhf --rlhf_type simpo`."""

    command, method = 'rlhf', {'rlhf_type': 'simpo'}


class RewardConfig(Config):
    """Flags of `swift rlhf --rlhf_type rm`."""

    command, method = 'rlhf', {'rlhf_type': 'rm'}


class EmbeddingConfig(Config):
    """Flags of `swift sft --task_type embedding`."""

    method = {'task_type': 'embedding'}


class RerankerConfig(Config):
    """Flags of `swift sft --task_type reranker`."""

    method = {'task_type': 'reranker'}


class DPOTrainer(MethodTrainer):
    """Direct preference optimisation."""

    config_class = DPOConfig


class KTOTrainer(MethodTrainer):
    """Kahneman-Tversky optimisation: answers judged one by one."""

    config_class = KTOConfig


class ORPOTrainer(MethodTrainer):
    """Odds ratio preference optimisation: no reference."""

    config_class = ORPOConfig


class CPOTrainer(MethodTrainer):
    """Contrastive preference optimisation: no reference."""

    config_class = CPOConfig


class SimPOTrainer(MethodTrainer):
    """Simple preference optimisation: no reference."""

    config_class = SimPOConfig


class RewardTrainer(MethodTrainer):
    """A reward model from pairs."""

    config_class = RewardConfig


class EmbeddingTrainer(MethodTrainer):
    """Texts become vectors."""

    config_class = EmbeddingConfig


class RerankerTrainer(MethodTrainer):
    """How well documents answer a query."""

    config_class = RerankerConfig
