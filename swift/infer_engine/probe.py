"""Which way of batching gives this model's own answers? Found out by running it, not by a list of names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from swift.core.log import get_logger
from swift.infer_engine.cache import NAME, SlotCache, make_plan

_LAYERS = {'full_attention', 'sliding_attention', 'attention'}


@contextmanager
def slot_attention_on(model: Any) -> Iterator[None]:
    """Within this block the model's attention is the one that reads slots."""
    base = model.get_base_model() if hasattr(model, 'get_base_model') else model
    before = {'': base.config._attn_implementation}
    before |= {key: part._attn_implementation for key in base.config.sub_configs if (part := getattr(base.config, key))}
    base.set_attn_implementation(NAME)
    try:
        yield
    finally:
        base.set_attn_implementation(before if len(before) > 1 else before[''])


def runs_in_slots(model: Any) -> int | None:
    """Bytes of one token's keys and values if continuous batching gives this model's own logits, else None.

    Two short rows are read and continued in slots, and compared with the plain forward of each.
    """
    config = model.config.get_text_config(decoder=True)
    types = set(getattr(config, 'layer_types', None) or ())
    if types - _LAYERS or getattr(model.config, 'is_encoder_decoder', False):
        return None
    vocab = model.get_input_embeddings().weight.shape[0]
    rows = [[(7 * i + 3) % vocab for i in range(7)], [(11 * i + 5) % vocab for i in range(5)]]
    try:
        with torch.no_grad():
            plain = [model(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits[0] for row in rows]
            with slot_attention_on(model):
                cache, saw = SlotCache(), False
                found: list[list[torch.Tensor]] = [[], []]
                for step in range(3):
                    plan, tokens = _step_plan(model, rows, step)
                    with plan:
                        logits = model(
                            input_ids=torch.tensor([tokens], device=model.device),
                            position_ids=plan.positions.unsqueeze(0),
                            past_key_values=cache,
                            use_cache=True,
                        ).logits[0]
                    saw |= plan.saw_window
                    ends = [len(rows[0]) - 3, len(tokens) - 1] if step == 0 else [0, 1]
                    for row, end in enumerate(ends):
                        found[row].append(logits[end])
    except Exception as error:  # whatever a foreign model's code raises here means: not this way
        get_logger().debug('continuous batching does not suit %s: %s', type(model).__name__, error, exc_info=True)
        return None
    limited = getattr(config, 'sliding_window', None) and getattr(config, 'use_sliding_window', True)
    if limited and not saw and (not types or 'sliding_attention' in types):
        return None  # the model limits attention in a way that our attention is not told
    expected = torch.cat([p[len(row) - 3 :] for p, row in zip(plain, rows, strict=True)]).float()
    actual = torch.stack([logits for row in found for logits in row]).float()
    spread = (expected.amax(-1) - expected.amin(-1)).clamp_min(1e-6)
    error = ((actual - expected).abs().amax(-1) / spread).max().item()
    limit = 1e-3 if model.dtype == torch.float32 else 0.05
    if not error <= limit:
        get_logger().debug('continuous batching differs by %.2g of the logits of %s', error, type(model).__name__)
        return None
    return cache.token_bytes()


def _step_plan(model: Any, rows: list[list[int]], step: int) -> tuple[Any, list[int]]:
    """Step 0 reads all but the last two tokens of both rows, steps 1 and 2 one more of each."""
    starts = [len(row) - 2 for row in rows]
    if step == 0:
        tokens = [token for row, start in zip(rows, starts, strict=True) for token in row[:start]]
        return make_plan([], starts, (2, 16), model.dtype, model.device), tokens
    lengths = [start + step - 1 for start in starts]
    tokens = [row[length] for row, length in zip(rows, lengths, strict=True)]
    return make_plan(lengths, [], (2, 16), model.dtype, model.device), tokens


def pads_on_the_left(model: Any) -> bool:
    """Whether a masked pad token in front of a row leaves the row's logits as they are."""
    vocab = model.get_input_embeddings().weight.shape[0]
    row = [(7 * i + 3) % vocab for i in range(6)]
    device = model.device
    mask = torch.tensor([[0, 0, *[1] * 6]], device=device)
    try:
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([row], device=device), use_cache=False).logits[0, -1].float()
            inputs = model.prepare_inputs_for_generation(
                torch.tensor([[0, 0, *row]], device=device), attention_mask=mask, use_cache=False, is_first_iteration=True
            )
            padded = model(**{**inputs, 'use_cache': False}).logits[0, -1].float()
    except Exception as error:
        get_logger().debug('left padding does not suit %s: %s', type(model).__name__, error)
        return False
    spread = (alone.max() - alone.min()).clamp_min(1e-6)
    return ((padded - alone).abs().max() / spread).item() <= (1e-3 if model.dtype == torch.float32 else 0.05)
