"""Before training: is a segment of a packed row computed as if it were alone? Decides how the model is run.

Field experience: models leak state between packed segments (recurrent layers, convolutions, masks that ignore position ids)
and train on, silently. So the first samples are run alone, by the model's own attention, and packed; they must agree, and
changing one segment must not change the other. A model that fails runs padded; if it disagrees there too, one sample at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from swift.core.configs import decoder_config, for_decoder
from swift.core.errors import ModelError
from swift.core.heads import BARE, LANGUAGE, SEQUENCE, head_kind
from swift.core.log import get_logger
from swift.core.types import IGNORE_INDEX, Sample
from swift.objectives import collate
from swift.parallel import group
from swift.trainers.attention import use_segments
from swift.trainers.forward import ModelActor, Plan, base_of

logger = get_logger()

LONGEST = 96
"""Tokens of each sample that are looked at."""


def plan(model: nn.Module, samples: Sequence[Sample], *, flat: bool = True) -> Plan:
    """How to run `model`, decided on two samples and agreed upon by all processes: those that show something, if there are any.

    `flat=False` asks for padded rows from the start. Sets the model's attention to run per segment where that is right.
    Raises ModelError when there is no sample to look at.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _decide(model, _pair(samples), flat)
    finally:
        model.train(was_training)


def _decide(model: nn.Module, pair: list[Sample], flat: bool) -> Plan:
    base = base_of(model)
    kind = head_kind(base)
    alone = [_outputs(model, [sample]) for sample in pair]
    selects, tail = _head(model, pair[0], alone[0]) if kind == LANGUAGE else (kind == SEQUENCE and _pools(model, pair), None)
    native = getattr(decoder_config(base), '_attn_implementation', None)
    reason = 'padded rows were asked for'
    if flat:
        pools_itself = kind == SEQUENCE and not selects
        reason = 'its pooler reads whole rows' if pools_itself else _why_not_flat(model, base, pair, alone)
        reasons = [text for text in group.gather(reason) if text]
        reason = reasons[0] if reasons else None
        if reason is None:
            return Plan(True, selects, tail)
        if native is not None and decoder_config(base)._attn_implementation != native:
            base.set_attn_implementation(for_decoder(base.config, native))
        logger.warning('%s runs on padded rows: %s', type(base).__name__, reason)
    gap = max(group.gather(max(_padding_gap(model, pair, alone), 0.0 if selects or kind != SEQUENCE else _row_gap(model, pair))))
    if gap > _tolerance(alone[0]):
        logger.warning(
            '%s runs one sample at a time: padding changes its outputs by %.1f %%', type(base).__name__, min(100 * gap, 999)
        )
        return Plan(False, selects, tail, reason, alone=True)
    return Plan(False, selects, tail, reason)


def _padding_gap(model: nn.Module, pair: list[Sample], alone: list[Tensor]) -> float:
    try:
        return _gap(_outputs(model, pair, padded=True), torch.cat(alone))
    except Exception:  # a model that can't take a padded batch at all
        return float('inf')


def _why_not_flat(model: nn.Module, base: nn.Module, pair: list[Sample], alone: list[Tensor]) -> str | None:
    """The reason in a few words; None when packed segments are as good as alone."""
    if getattr(base.config, 'is_encoder_decoder', False):
        return 'it has an encoder'
    if use_segments(base) is None:
        return 'its attention can not be told where segments end'
    try:
        packed = _outputs(model, pair)
        swapped = _outputs(model, [_changed(pair[0]), pair[1]])
    except Exception as error:  # whatever a modeling file does with a flat row, padded rows are the answer
        return f'a flat row fails in it ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""})'
    size = len(alone[0])
    leak = _gap(swapped[size:], packed[size:])
    if leak > _tolerance(alone[0]) / 20:
        return f'packed samples leak into each other (a neighbour changes outputs by {leak:.1%})'
    gap = _gap(packed, torch.cat(alone))
    return f'packed samples differ from samples alone by {gap:.1%}' if gap > _tolerance(alone[0]) else None


def _changed(sample: Sample) -> Sample:
    """Another sample of the same length: what it shows inverted; its text backwards where it shows nothing."""
    if sample.media is None:
        return Sample(list(reversed(sample.input_ids)), list(sample.labels))
    media = [shown and shown.map(lambda value: -value if value.is_floating_point() else value) for shown in sample.media]
    return Sample(sample.input_ids, sample.labels, media=media)


def _outputs(model: nn.Module, samples: list[Sample], padded: bool = False) -> Tensor:
    """[tokens, V] logits of the last (at most LONGEST) tokens of all samples, through the model's whole forward; [tokens, H] hidden
    states where logits are none of a token's."""
    batch = (collate.padded if padded else collate.flat)(samples).to(next(model.parameters()).device)
    actor = ModelActor(model, Plan(flat=not padded, selects=False))
    width = None if batch.flat else batch.input_ids.shape[1]
    starts = [number * width for number in range(len(samples))] if width else [0, *accumulate(map(len, samples))]
    places = [range(start + max(0, len(sample) - LONGEST), start + len(sample)) for start, sample in zip(starts, samples, strict=False)]
    index = torch.tensor([place for part in places for place in part], device=batch.input_ids.device)
    if actor.kind in (SEQUENCE, BARE):
        hidden = actor.hidden(batch)
        return hidden.reshape(-1, hidden.shape[-1])[index]
    return actor.logits(batch, index)


def _row_gap(model: nn.Module, pair: list[Sample]) -> float:
    """How much padding changes the scores of a classifier that pools by itself, relative to the largest one."""
    device = next(model.parameters()).device
    actor = ModelActor(model, Plan(flat=False, selects=False))
    try:
        alone = torch.cat([actor.scores(collate.flat([sample]).to(device)) for sample in pair]).float()
        gap = (actor.scores(collate.padded(pair).to(device)).float() - alone).abs().max() / alone.abs().max().clamp(min=1e-3)
    except Exception:  # a model that can't take a padded batch at all
        return float('inf')
    return gap.item() if bool(gap.isfinite()) else float('inf')


def _pools(model: nn.Module, pair: list[Sample]) -> bool:
    """Whether the scores of a sequence classifier come out right when its head gets only the last token's hidden states."""
    own, picked = ModelActor(model, Plan(selects=False)), ModelActor(model, Plan(selects=True))
    try:
        for sample in pair:
            batch = collate.flat([sample]).to(next(model.parameters()).device)
            wanted, found = own.scores(batch).float(), picked.scores(batch).float()
            if wanted.shape != found.shape or (wanted - found).abs().max() > _tolerance(wanted) * max(1e-3, wanted.abs().max()):
                return False
    except Exception:  # a head of another kind: its own forward gives the scores
        return False
    return True


def _gap(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the spread of the logits."""
    a, b = a.float(), b.float()
    spread = (b - b.mean(-1, keepdim=True)).abs().max().clamp(min=1e-30)
    gap = ((a - b).abs().max() / spread).item()
    return gap if gap == gap else float('inf')


def _tolerance(logits: Tensor) -> float:
    """Rounding that a deep model may show between two ways of computing the same."""
    return {torch.bfloat16: 8e-2, torch.float16: 2e-2}.get(logits.dtype, 1e-3)


def _pair(samples: Sequence[Sample]) -> list[Sample]:
    """Two unlabelled samples of different length: the shortest that show something, whole; else texts, at most LONGEST tokens each."""
    if shown := sorted(map(_first_segment, filter(_shows, samples)), key=len)[:2]:
        texts = [Sample(list(s.input_ids)[:LONGEST], [IGNORE_INDEX] * min(len(s), LONGEST)) for s in samples if s.media is None]
        other = shown[1:] or texts[:1] or shown[:1]
        return [shown[0], *other]
    ids = [list(samples[i].input_ids)[:LONGEST] for i in range(min(2, len(samples)))]
    ids = [row for row in ids if len(row) > 1]
    if not ids:
        raise ModelError('there is no sample to check the model with;', 'give a data set that is not empty')
    if len(ids) == 1 or len(ids[0]) == len(ids[1]):
        ids = [ids[0], ids[-1][: max(2, len(ids[-1]) * 2 // 3)]]
    return [Sample(row, [IGNORE_INDEX] * len(row)) for row in ids]


def _shows(sample: Sample) -> bool:
    return bool(sample.media and sample.media[0])


def _first_segment(sample: Sample) -> Sample:
    ids = list(sample.input_ids)[: sample.segment_lengths[0]]
    return Sample(ids, [IGNORE_INDEX] * len(ids), media=sample.media[:1])


# ---- the head


def _head(model: nn.Module, sample: Sample, alone: Tensor) -> tuple[bool, Callable[[Tensor], Tensor] | None]:
    """Whether the hook on the output embedding selects rightly, and what the model does to the logits of its head."""
    actor = ModelActor(model)
    if actor.head is None:
        return False, None
    batch = collate.flat([sample]).to(next(model.parameters()).device)
    behind = len(sample) - len(alone)
    index = torch.arange(behind, len(sample), 2, device=batch.input_ids.device)
    raw: list[Tensor] = []
    try:
        handle = actor.head.register_forward_hook(lambda module, args, output: raw.append(output))
        with handle:
            chosen = actor.logits(batch, index)
    except Exception:  # a head that can't take single positions: all logits are made instead
        return False, None
    wanted = alone[index - behind]
    if chosen.shape != wanted.shape or _gap(chosen, wanted) > _tolerance(alone):
        return False, None
    return True, next((tail for tail in _tails(actor.base) if _same(tail, raw[0][0], chosen)), None)


def _same(tail: Callable[[Tensor], Tensor], raw: Tensor, logits: Tensor) -> bool:
    return raw.shape == logits.shape and torch.allclose(tail(raw).float(), logits.float(), rtol=1e-5, atol=1e-6)


def _tails(base: nn.Module) -> list[Callable[[Tensor], Tensor]]:
    """What models are known to do to logits; the one that fits is found by comparison."""
    config = base.config.get_text_config() if hasattr(base.config, 'get_text_config') else base.config
    tails: list[Callable[[Tensor], Tensor]] = [lambda z: z]
    for name in ('final_logit_softcapping', 'logits_soft_cap'):
        if cap := getattr(config, name, None):
            tails.append(lambda z, cap=cap: torch.tanh(z / cap) * cap)
    for name in ('logit_scale', 'lm_head_multiplier', 'output_multiplier_scale'):
        if scale := getattr(config, name, None):
            tails.append(lambda z, scale=scale: z * scale)
    for name in ('logits_scaling', 'mup_width_multiplier'):
        if scale := getattr(config, name, None):
            tails.append(lambda z, scale=scale: z / scale)
    return tails
