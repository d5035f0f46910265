"""Which way of batching gives this model's own answers? Found out by running it, not by a list of names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from swift.core.configs import decoder_config, for_decoder
from swift.core.log import get_logger
from swift.infer_engine.cache import NAME, SlotCache, make_plan

_LAYERS = {'full_attention', 'sliding_attention', 'attention'}


@contextmanager
def slot_attention_on(model: Any) -> Iterator[None]:
    """Within this block the attention of the language model is the one that reads slots; towers keep theirs."""
    base = model.get_base_model() if hasattr(model, 'get_base_model') else model
    before = decoder_config(base)._attn_implementation
    base.set_attn_implementation(for_decoder(base.config, NAME))
    try:
        yield
    finally:
        base.set_attn_implementation(for_decoder(base.config, before))


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
    if not error <= _tolerance(model):
        get_logger().debug('continuous batching differs by %.2g of the logits of %s', error, type(model).__name__)
        return None
    return cache.token_bytes()


def batches_like_alone(model: Any, batch: dict[str, Any], alone: list[dict[str, Any]]) -> bool:
    """Whether `generate` gives the rows of a batch, padded on the left, the logits that each of them gets alone, for three tokens."""
    try:
        with torch.no_grad():
            expected = torch.cat([_first_logits(model, inputs) for inputs in alone])
            actual = _first_logits(model, batch)
    except Exception as error:  # whatever a foreign model's code raises here means: one at a time
        get_logger().debug('rows that show something do not share a batch of %s: %s', type(model).__name__, error)
        return False
    spread = (expected.amax(-1) - expected.amin(-1)).clamp_min(1e-6)
    error = ((actual - expected).abs().amax(-1) / spread).max().item()
    same = error <= _tolerance(model)
    if not same:
        get_logger().debug('a batch of rows that show something differs by %.2g of the logits of %s', error, type(model).__name__)
    return same


def _first_logits(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """[rows, 3, V] logits of the next token, and of two more after tokens that are the same whatever the logits are."""
    vocab = model.get_input_embeddings().weight.shape[0]
    tokens = [3 % vocab, 10 % vocab, 17 % vocab]
    length = inputs['input_ids'].shape[1]

    def only(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, float('-inf')).index_fill_(1, torch.tensor([tokens[ids.shape[1] - length]], device=scores.device), 0)

    config = GenerationConfig(
        max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=vocab + 1, output_logits=True, return_dict_in_generate=True
    )
    found = model.generate(**inputs, generation_config=config, logits_processor=[only])
    return torch.stack(found.logits, 1).float()


def _tolerance(model: Any) -> float:
    """Rounding between two ways of computing the same, as a share of the range of the logits."""
    return 1e-3 if model.dtype == torch.float32 else 0.05


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
    return ((padded - alone).abs().max() / spread).item() <= _tolerance(model)
