"""The reference model of a preference objective: where it comes from, how it is run, whether it is kept.

    LoRA                        the adapter switched off: no second copy
    LoRA of PiSSA, OLoRA        the adapter as it started (its base alone is not the model as it was)
    LoRA with --ref_adapters    a second, frozen adapter on the same base
    everything else             a model of its own, loaded from the same files or from --ref_model

With --precompute_ref_log_probs it is asked once, before training, and then dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from swift.core.errors import ModelError, SwiftError
from swift.core.log import get_logger
from swift.core.types import Actor

logger = get_logger()

NAME = 'reference'
"""The second adapter's name in the policy's model."""


@dataclass(frozen=True)
class Reference:
    """What a training gets from its reference."""

    plan: Any
    """How both models are run (`trainers.forward.Plan`)."""
    data: Any
    """The samples; with log-probabilities computed in advance, they carry them."""
    actors: Mapping[str, Actor] = field(default_factory=dict)
    """Role → actor, for the Trainer. Empty: the objective needs none (any more)."""
    callbacks: Sequence[Any] = ()


NO_REFERENCE = Reference(None, None)


def build_reference(args: Any, model: Any, plan: Any, first: Any, data: Any, objective: Any, template: Any) -> Reference:
    """The reference that `args` (RlhfArgs) asks for, run the way of `plan`; `first`: samples for the start-up check; `template`
    reads what samples show.

    Call it before a checkpoint's weights are put into `model`: the reference is what training started from.
    """
    make = Maker(args, reference_args(args), model, plan, first)
    make.warn_of_a_bare_base()
    if args.precompute_ref_log_probs:
        from swift.pipelines.reference_logps import with_reference_logps

        return Reference(plan, with_reference_logps(data, args, make.folder(), make.adapters(), make.opened, template.read_media))
    if args.sync_ref_model:
        return _following(make, data)
    view = make.inside()
    if view is not None:
        return Reference(plan, data, {'reference': make.actor(model, plan, view)})
    reference, own = make.apart()
    return Reference(make.common(own), data, {'reference': make.actor(reference, own)})


def keeps_copy(args: Any) -> bool:
    """Whether a second set of the model's weights is held during training (for an estimate; `args` resolved)."""
    if args.precompute_ref_log_probs or getattr(args, 'reference_free', False):
        return False
    return bool(args.ref_model or args.sync_ref_model or args.tuner_type != 'lora')


def reference_args(args: Any) -> Any:
    """The model arguments that load the reference where it is a model of its own."""
    if args.ref_model:
        return replace(args, model=args.ref_model, model_type=args.ref_model_type, model_revision=args.ref_model_revision,
                       adapters=list(args.ref_adapters))  # fmt: skip
    from swift.model.load import model_info

    info = model_info(args)
    if args.model and not info.adapters:
        return replace(args, adapters=list(args.ref_adapters))
    return replace(args, model=info.model_dir, model_type=info.model_type, model_revision=None, adapters=list(args.ref_adapters))


@dataclass(frozen=True)
class Maker:
    """Makes the reference of one training, inside the policy's model or apart from it."""

    args: Any
    wanted: Any
    """Model arguments of a reference of its own (`reference_args`)."""
    model: Any
    """The policy, before its first step."""
    plan: Any
    first: Any

    def inside(self) -> Any:
        """The view of the policy's own model that is the reference (`tuners.switch.View`); None: there is no such view."""
        from swift.tuners import is_adapter, switch

        args, model = self.args, self.model
        if not is_adapter(model) or args.ref_model:
            return None
        start = switch.split_start(model)
        if not args.ref_adapters:
            if start is not None:
                return switch.as_started(model, start)
            if args.init_weights == 'loftq' and not args.resume_only_model and not args.adapters:
                return switch.as_started(model, switch.present(model))
            return switch.adapters_off(model)
        adapters = self.adapters()
        if start is not None or not switch.can_share(model, adapters[0]):
            return None
        switch.add_frozen(model, adapters[0], NAME)
        return switch.other_adapter(model, NAME)

    def apart(self) -> tuple[Any, Any]:
        """(a frozen model of its own, how it is run)."""
        from swift.model.load import load_model
        from swift.trainers import selfcheck
        from swift.tuners import is_adapter, load_adapter

        loaded = load_model(self.wanted, for_training=True)
        self._check_vocabulary(loaded)
        reference = loaded.model
        if loaded.info.adapters:
            reference = load_adapter(reference, self.adapters())
        if not self.args.ref_model and not is_adapter(self.model) and self.args.init_strategy and not self.args.resume_only_model:
            reference.load_state_dict(self.model.state_dict())  # weights that were filled at random
        reference = _placed(reference, self.model).eval().requires_grad_(False)
        return reference, selfcheck.plan(reference, self.first, flat=self.plan.flat)

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[Any, Any, Any]]:
        """(actor, how it is run, its device) of a reference that is gone afterwards, in the precision of training."""
        import torch

        from swift.trainers.hf_args import precision
        from swift.tuners import switch

        view, model, plan = self.inside(), self.model, self.plan
        if view is None:
            view = torch.no_grad
            model, plan = self.apart()
        device, dtype = next((p.device, p.dtype) for p in model.parameters() if p.is_floating_point())
        half, brain = precision(self.args, dtype)
        kind = torch.float16 if half else torch.bfloat16 if brain else None

        @contextlib.contextmanager
        def around() -> Iterator[None]:
            with view(), torch.autocast(device.type, dtype=kind, enabled=kind is not None):
                yield

        try:
            yield self.actor(model, plan, around), plan, device
        finally:
            if NAME in getattr(self.model, 'peft_config', {}):
                switch.remove(self.model, NAME)
            model = None
            if device.type == 'cuda':
                torch.cuda.empty_cache()

    def common(self, own: Any) -> Any:
        """How the policy is run beside a reference that is run like `own`: both see the same batches."""
        from swift.trainers import selfcheck

        if self.plan.flat and not own.flat:
            return selfcheck.plan(self.model, self.first, flat=False)
        return self.plan

    def actor(self, model: Any, plan: Any, view: Any = None) -> Actor:
        """The reference as an objective sees it; its forwards keep nothing for a backward."""
        import torch

        from swift.trainers.forward import ModelActor

        return ModelActor(model, plan, around=view or torch.no_grad)

    def folder(self) -> str:
        """Where the reference's own files are, its adapter aside."""
        from swift.model.load import model_info

        return model_info(self.wanted).model_dir

    def adapters(self) -> list[str]:
        """Directories of the reference's adapters: one, or none. Raises SwiftError for several."""
        from swift.model.load import model_info

        found = list(model_info(self.wanted).adapters)
        if len(found) > 1:
            raise SwiftError(f'--ref_adapters: a reference has one adapter, got {len(found)};', 'merge them first (swift merge-lora)')
        return found

    def warn_of_a_bare_base(self) -> None:
        """Going on with a trained adapter, the reference is mostly meant to be that adapter, not its base."""
        from swift.model.load import model_info

        args = self.args
        trained = () if args.ref_model or args.ref_adapters else model_info(args).adapters
        if trained:
            logger.warning('the reference is the base model without the adapter that training goes on with; '
                           'is the policy to stay close to that adapter, give --ref_adapters %s', trained[0])  # fmt: skip

    def _check_vocabulary(self, loaded: Any) -> None:
        """The reference reads the policy's tokens: every one must be the same there."""
        from swift.model.load import load_processor
        from swift.model.tokens import tokenizer_of

        if not (self.args.ref_model or self.args.adapters or loaded.info.adapters):
            return
        name = self.args.ref_model or 'the base model'
        own, other = tokenizer_of(load_processor(self.args)).get_vocab(), loaded.tokenizer.get_vocab()
        for token, number in own.items():
            if other.get(token) != number:
                there = f'is {other[token]}' if token in other else 'does not exist'
                raise ModelError(
                    f'the reference ({name}) has another vocabulary than the model: token {token!r} is {number} here and {there} there;',
                    'take a --ref_model with the same tokenizer',
                )
        rows = loaded.model.get_input_embeddings().weight.shape[0]
        if rows <= max(own.values()):
            raise ModelError(f'the reference ({name}) has {rows} embeddings for {len(own)} tokens;', 'take a --ref_model with the same tokenizer')


def _placed(reference: Any, policy: Any) -> Any:
    """On the policy's device and in its type of weights."""
    import torch

    from swift.core.dist import local_rank
    from swift.trainers.forward import base_of

    if not getattr(reference, 'hf_device_map', None) and torch.accelerator.is_available():
        reference = reference.to(f'{torch.accelerator.current_accelerator().type}:{local_rank()}')
    kinds = [next((p.dtype for p in base_of(model).parameters() if p.is_floating_point()), None) for model in (reference, policy)]
    quantised = getattr(base_of(reference), 'is_quantized', False)
    return reference if quantised or kinds[0] == kinds[1] else reference.to(kinds[1])


def _following(make: Maker, data: Any) -> Reference:
    """TR-DPO: a model of its own with plain weights, which takes in the policy's from time to time."""
    from functools import partial

    from swift.trainers.callbacks.sync_reference import SyncReferenceCallback
    from swift.tuners import is_adapter
    from swift.tuners.effective import check_separable, effective_weights
    from swift.tuners.merging import fold

    check_separable(make.model)
    reference, own = make.apart()
    if is_adapter(reference):
        reference = fold(reference).eval().requires_grad_(False)
    follow = SyncReferenceCallback(
        reference, partial(effective_weights, make.model), steps=make.args.ref_model_sync_steps, alpha=make.args.ref_model_mixup_alpha
    )
    return Reference(make.common(own), data, {'reference': make.actor(reference, own)}, (follow,))
