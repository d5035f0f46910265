"""Folding adapters into their base weights, and proof that nothing was lost.

The sum is made in float32 and rounded once, one layer at a time. Then the merged model must say what base + adapter
said on probe prompts, else CheckpointError.
"""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swift.core.errors import CheckpointError, ModelError
from swift.core.heads import LANGUAGE, head_kind
from swift.tuners.registry import is_adapter, unwrap

_LIMITS = {torch.float32: (2e-3, 1e-5), torch.float64: (1e-6, 1e-9)}
_HALF_LIMITS = (0.5, 2e-2)
"""(largest difference of a logit relative to the largest logit, mean KL in nats) that rounding can explain."""


@dataclass(frozen=True)
class MergeReport:
    """How far the merged model is from base + adapter on the probe. KL in nats a token."""

    max_diff: float
    kl: float
    effect: float
    """KL between the base alone and base + adapter: how much the adapter changes."""
    tokens: int

    def __str__(self) -> str:
        return (
            f'merged against base + adapter on {self.tokens} tokens: max|Δlogit| {self.max_diff:.2e}, '
            f'KL {self.kl:.2e} (the adapter itself changes KL {self.effect:.2e})'
        )


def merge(model: Any, probe: Tensor | None = None) -> tuple[Any, MergeReport]:
    """(base model with the active adapters folded in, how exact it is).

    `probe` are token ids [B, T] to compare logits on; None takes fixed pseudo-random ids. Raises ModelError for a
    quantised base and CheckpointError when merged and unmerged logits differ more than rounding explains.
    """
    model = unwrap(model)
    if not is_adapter(model):
        raise ModelError('the model carries no adapter to merge.')
    _refuse_quantised(model)
    was_training = model.training
    model.eval()
    probe = _probe(model) if probe is None else probe.to(_device(model))
    wanted, bare = _said(model, probe)
    merged = fold(model)
    report = _judged(wanted, bare, merged, probe)
    merged.train(was_training)
    return merged, report


def compare(model: Any, merged: Any, probe: Tensor | None = None) -> MergeReport:
    """How far `merged`, made earlier or elsewhere, is from `model`, a base with its adapter on. Raises as `merge` does."""
    model, merged = unwrap(model).eval(), unwrap(merged).eval()
    probe = _probe(model) if probe is None else probe.to(_device(model))
    wanted, bare = _said(model, probe)
    return _judged(wanted, bare, merged, probe)


def _said(model: Any, probe: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of base + adapter, and of the base alone."""
    wanted = outputs_of(model, probe)
    with model.disable_adapter():
        return wanted, outputs_of(model, probe)


def _judged(wanted: Tensor, bare: Tensor, merged: Any, probe: Tensor) -> MergeReport:
    got = outputs_of(merged, probe)
    report = MergeReport(
        max_diff=(got - wanted).abs().max().item(), kl=_kl(wanted, got), effect=_kl(wanted, bare), tokens=probe.numel()
    )
    _judge(report, wanted, _dtype(merged))
    return report


def fold(model: Any) -> Any:
    """Add every active adapter to its base weights in float32, round once, and return the bare base model."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for layer in model.modules():
            if _adapts(layer):
                base = layer.get_base_layer()
                types = {name: p.dtype for name, p in base.named_parameters(recurse=False) if p.is_floating_point()}
                for name in types:
                    parameter = getattr(base, name)
                    parameter.data = parameter.data.float()
                layer.merge()
                for name, dtype in types.items():
                    parameter = getattr(base, name)
                    parameter.data = parameter.data.to(dtype)
        return model.merge_and_unload(progressbar=False)


def _adapts(layer: nn.Module) -> bool:
    return hasattr(layer, 'get_base_layer') and hasattr(layer, 'merge') and hasattr(layer, 'lora_A')


def _refuse_quantised(model: Any) -> None:
    base = model.get_base_model()
    method = getattr(base, 'quantization_method', None)
    if getattr(base, 'is_quantized', False) or method:
        raise ModelError(
            'merging into a quantised base rounds most of the adapter away;',
            'load the unquantised model with --model and this adapter with --adapters, then merge.',
        )


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device


def _dtype(model: Any) -> torch.dtype:
    types = [p.dtype for p in model.parameters() if p.is_floating_point()]
    return max(set(types), key=types.count)


def _probe(model: Any, length: int = 48) -> Tensor:
    """Two rows of fixed pseudo-random token ids."""
    embedding = model.get_input_embeddings()
    vocab = getattr(embedding, 'num_embeddings', None) or embedding.weight.shape[0]
    ids = torch.randint(0, vocab, (2, length), generator=torch.Generator().manual_seed(0))
    return ids.to(_device(model))


@torch.no_grad()
def outputs_of(model: Any, ids: Tensor) -> Tensor:
    """[B, T, V] logits, [B, C] scores of a classifier, or [B, T, H] hidden states of a model without a head; float32."""
    base = model.get_base_model() if hasattr(model, 'get_base_model') else model
    caches = head_kind(base) == LANGUAGE or 'use_cache' in inspect.signature(base.forward).parameters
    cache = {'use_cache': False} if caches else {}
    output = model(input_ids=ids, **cache)
    return (output.logits if hasattr(output, 'logits') else output.last_hidden_state).float()


def _kl(wanted: Tensor, got: Tensor) -> float:
    p, q = F.log_softmax(wanted, -1), F.log_softmax(got, -1)
    return max((p.exp() * (p - q)).sum(-1).mean().item(), 0.0)


def _judge(report: MergeReport, wanted: Tensor, dtype: torch.dtype) -> None:
    relative, kl = _LIMITS.get(dtype, _HALF_LIMITS)
    scale = max(wanted.abs().max().item(), 1.0)
    finite = report.max_diff == report.max_diff and report.kl == report.kl
    if finite and report.max_diff <= relative * scale and report.kl <= kl:
        return
    raise CheckpointError(f'the merged model is not the adapter it came from: {report};', 'nothing was written.')
