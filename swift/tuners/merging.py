"""Folding adapters into their base weights, and proof that nothing was lost.

The sum is made in float32 and rounded once, one layer at a time. Then the merged model must say what base + adapter
said on probe prompts, else CheckpointError. What a probe of text does not run (vision and audio towers, aligners, experts that
no token chose) is compared module by module.
"""

from __future__ import annotations

import inspect
import re
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
    modules: int = 0
    """Modules that the probe did not run, and that were compared by themselves."""
    modules_diff: float = 0.0
    """Largest difference of their outputs, relative to the largest output of the module."""

    def __str__(self) -> str:
        apart = f'; {self.modules} modules beside the text: {self.modules_diff:.1e} of their largest output' if self.modules else ''
        return (
            f'merged against base + adapter on {self.tokens} tokens: max|Δlogit| {self.max_diff:.2e}, '
            f'KL {self.kl:.2e} (the adapter itself changes KL {self.effect:.2e}){apart}'
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
    probe = probe_of(model) if probe is None else probe.to(_device(model))
    with _Silent(model) as silent:
        wanted, bare = _said(model, probe)
    said = silent.said()
    merged = fold(model)
    report = _judged(wanted, bare, merged, probe, _apart(said, merged))
    merged.train(was_training)
    return merged, report


def compare(model: Any, merged: Any, probe: Tensor | None = None) -> MergeReport:
    """How far `merged`, made earlier or elsewhere, is from `model`, a base with its adapter on. Raises as `merge` does."""
    model, merged = unwrap(model).eval(), unwrap(merged).eval()
    probe = probe_of(model) if probe is None else probe.to(_device(model))
    with _Silent(model) as silent:
        wanted, bare = _said(model, probe)
    return _judged(wanted, bare, merged, probe, _apart(silent.said(), merged))


def _said(model: Any, probe: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of base + adapter, and of the base alone."""
    wanted = outputs_of(model, probe)
    with model.disable_adapter():
        return wanted, outputs_of(model, probe)


def _judged(wanted: Tensor, bare: Tensor, merged: Any, probe: Tensor, apart: tuple[int, float]) -> MergeReport:
    got = outputs_of(merged, probe)
    report = MergeReport(
        max_diff=(got - wanted).abs().max().item(), kl=_kl(wanted, got), effect=_kl(wanted, bare), tokens=probe.numel(),
        modules=apart[0], modules_diff=apart[1],
    )  # fmt: skip
    _judge(report, wanted, _dtype(merged))
    return report


class _Silent:
    """The adapted modules that a probe does not run, and what each of them says to an input of its own."""

    def __init__(self, model: Any):
        self._layers = {name: layer for name, layer in model.get_base_model().named_modules() if _adapts(layer) or _replaced(layer)}
        self._heard: set[int] = set()

    def __enter__(self) -> _Silent:
        self._hooks = [layer.register_forward_hook(lambda layer, *_: self._heard.add(id(layer))) for layer in self._layers.values()]
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def said(self) -> dict[str, tuple[Tensor | None, Any]]:
        """Name in the bare model → (input, output) of a linear module, or (None, weights) of one that was replaced as a whole."""
        found: dict[str, tuple[Tensor | None, Any]] = {}
        for name, layer in self._layers.items():
            if id(layer) in self._heard:
                continue
            if _replaced(layer):
                copy = layer.modules_to_save[layer.active_adapters[0]]
                found[name] = (None, {key: value.detach().clone() for key, value in copy.state_dict().items()})
            elif hasattr(layer.get_base_layer(), 'in_features') and not hasattr(layer, 'parameter_name'):
                weight = layer.get_base_layer().weight
                draw = torch.Generator().manual_seed(len(found))
                value = torch.randn(4, layer.get_base_layer().in_features, generator=draw).to(weight)
                found[name] = (value, layer(value).float())
        return found


def _replaced(layer: nn.Module) -> bool:
    return 'modules_to_save' in layer._modules and bool(layer.active_adapters)


@torch.no_grad()
def _apart(said: dict[str, tuple[Tensor | None, Any]], merged: Any) -> tuple[int, float]:
    """(modules that were compared by themselves, largest difference of an output relative to the largest output of its module)."""
    worst = 0.0
    for name, (value, wanted) in said.items():
        module = merged.get_submodule(name)
        if value is None:
            same = all(torch.equal(own, wanted[key]) for key, own in module.state_dict().items())
            worst = max(worst, 0.0 if same else float('inf'))
        else:
            difference = (module(value).float() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6)
            worst = max(worst, difference.item()) if difference == difference else float('inf')
    return len(said), worst


def largest_difference(model: Any, other: Any) -> float:
    """Largest difference between the weights of two models of one architecture; infinite where one has a weight that the other lacks."""
    own, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    if set(own) != set(theirs) or any(own[name].shape != theirs[name].shape for name in own):
        return float('inf')
    return max(((own[name].detach().cpu() - theirs[name].detach().cpu()).abs().max().item() for name in own if own[name].numel()), default=0.0)


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


def probe_of(model: Any, rows: int = 2, length: int = 48, seed: int = 0) -> Tensor:
    """[rows, length] fixed pseudo-random token ids; none that stands for an image or a sound."""
    embedding = model.get_input_embeddings()
    vocab = getattr(embedding, 'num_embeddings', None) or embedding.weight.shape[0]
    ids = torch.randint(0, vocab, (rows, length), generator=torch.Generator().manual_seed(seed))
    media = _media_tokens(getattr(model, 'config', None))
    plain = next(token for token in range(vocab) if token not in media)
    for token in media:
        ids[ids == token] = plain
    return ids.to(_device(model))


def _media_tokens(config: Any) -> set[int]:
    """Token ids that a configuration has for images, videos and sounds."""
    found: set[int] = set()
    for part in (config, getattr(config, 'thinker_config', None)):
        for name, value in vars(part).items() if part is not None else ():
            if isinstance(value, int) and name.endswith(('_token_id', '_token_index')) and re.search('image|video|audio|vision|speech', name):
                found.add(value)
    return found


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
    if finite and report.max_diff <= relative * scale and report.kl <= kl and report.modules_diff <= relative:
        return
    raise CheckpointError(f'the merged model is not the adapter it came from: {report};', 'nothing was written.')
