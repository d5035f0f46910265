"""The tokenizer side of loading: padding, new special tokens, and rows of the embedding for them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from swift.core.errors import ModelError
from swift.core.log import get_logger

if TYPE_CHECKING:
    import torch

logger = get_logger(__name__)

_PAD_NAMES = ('<|endoftext|>', '<pad>', '[PAD]', '<|pad|>', '<|finetune_right_pad_id|>', '<|end_of_text|>', '<unk>', '[UNK]')


def tokenizer_of(processor: Any) -> Any:
    """The text tokenizer inside a processor (or the tokenizer itself)."""
    return getattr(processor, 'tokenizer', processor)


def ensure_pad_token(tokenizer: Any) -> None:
    """Give the tokenizer a pad token when it has none: a spare special token, else the end-of-text token.

    Labels and attention masks are made from positions, never from ids, so a pad token that equals eos masks nothing.
    """
    if tokenizer.pad_token_id is not None:
        return
    for name in _PAD_NAMES:
        number = tokenizer.convert_tokens_to_ids(name)
        if number is not None and number != tokenizer.unk_token_id and name != tokenizer.eos_token:
            tokenizer.pad_token = name
            return
    fallback = tokenizer.unk_token or tokenizer.eos_token
    if fallback is None:  # a tokenizer without any special token: padding is never looked at, so any id serves
        fallback = tokenizer.convert_ids_to_tokens(0)
    tokenizer.pad_token = fallback


def read_new_tokens(values: list[str]) -> list[str]:
    """The tokens of `--new_special_tokens`: given directly, or one a line in .txt files."""
    tokens: list[str] = []
    for value in values:
        if value.endswith('.txt'):
            if not os.path.isfile(value):
                raise ModelError(f'--new_special_tokens: the file {value} does not exist.')
            with open(value, encoding='utf-8') as file:
                tokens += [line.strip() for line in file if line.strip()]
        else:
            tokens.append(value)
    if any(not token.strip() for token in tokens):
        raise ModelError('--new_special_tokens holds an empty token.')
    return list(dict.fromkeys(tokens))


def add_new_tokens(tokenizer: Any, values: list[str]) -> tuple[int, ...]:
    """Add special tokens that the tokenizer lacks, and return the ids of all that were asked for.

    A token that the vocabulary holds already as an ordinary or special token keeps its id.
    """
    tokens = read_new_tokens(values)
    if not tokens:
        return ()
    added = tokenizer.add_special_tokens({'additional_special_tokens': tokens}, replace_extra_special_tokens=False)
    ids = tuple(tokenizer.convert_tokens_to_ids(tokens))
    broken = [token for token, number in zip(tokens, ids, strict=True) if number is None or number == tokenizer.unk_token_id]
    if broken:
        raise ModelError(f'the tokenizer would not take the new special tokens {broken}.')
    logger.info('special tokens: %d asked for, %d new to the tokenizer', len(tokens), added)
    return ids


def fit_embedding(model: Any, tokenizer: Any, new_ids: tuple[int, ...], old_size: int) -> None:
    """Make the embedding large enough for the tokenizer, and start new tokens at the mean of the known ones.

    Rows are never taken away: many models keep spare rows (a vocabulary padded to a multiple of 128). `old_size` is
    the tokenizer's length before new tokens came, so the mean is over rows that were trained.
    """
    import torch

    embedding = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        logger.info('embedding: %d → %d rows', rows, len(tokenizer))
    fresh = sorted({number for number in new_ids if number >= old_size} | set(range(min(rows, len(tokenizer)), len(tokenizer))))
    if not fresh:
        return
    known = min(old_size, rows)
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight = None if module is None else getattr(module, 'weight', None)
        if weight is None or weight.device.type == 'meta':
            continue
        with torch.no_grad():
            _fill(weight, known, fresh)
            bias = getattr(module, 'bias', None)
            if bias is not None and bias.shape[0] == weight.shape[0]:
                bias[fresh] = bias[:known].float().mean().to(bias.dtype)


def _fill(weight: torch.Tensor, known: int, fresh: list[int]) -> None:
    weight[fresh] = weight[:known].float().mean(dim=0).to(weight.dtype)
