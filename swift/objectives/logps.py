"""Log-probabilities of labelled tokens: the only shift-and-gather in the house.

A label at flat position i is predicted by the hidden state at i - 1. The first token of a segment never carries a
label, so the predictor always lies in the same segment, in flat and in padded batches alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from swift.core.types import IGNORE_INDEX, AnswerTokens, Batch

CPU_BLOCK, DEVICE_BLOCK = 1 << 17, 1 << 26
"""Elements of the float32 scratch of one block of rows: what a core's cache holds; few launches elsewhere."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Where the N labelled tokens of a batch are."""

    index: Tensor
    """[N] int64: flat position of the label; its predictor is at `index - 1`."""
    segment: Tensor
    """[N] int64: segment (row, in a padded batch) of the label."""
    targets: Tensor
    """[N] int64: the label."""


def locate(labels: Tensor, lengths: Tensor, flat: bool) -> dict[str, Tensor]:
    """Flat positions and segments of every label, as `collate` stores them in `Batch.extra['answers']`."""
    index = (labels.reshape(-1) != IGNORE_INDEX).nonzero().reshape(-1)
    if flat:
        ends = lengths.cumsum(0).to(labels.device)
        segment = torch.bucketize(index, ends, right=True)
    else:
        segment = index // labels.shape[-1]
    return {'index': index, 'segment': segment}


def answers(batch: Batch) -> Answers:
    """The labelled tokens of `batch`: as `collate` found them (no device synchronisation), else searched for."""
    found = batch.extra.get('answers') or locate(batch.labels, batch.lengths, batch.flat)
    return Answers(found['index'], found['segment'], batch.labels.reshape(-1)[found['index']])


class _Statistics(torch.autograd.Function):
    """Per row of logits [N, V]: log p(target), log-sum-exp, mean log p, entropy, whether the target is the most likely, log Σ p².

    With p = softmax(z), s = logsumexp(z), H the entropy, and incoming gradients g:
    dz = p (g_s - g_logp - g_mean - g_H (log p + H)) + g_mean / V, plus g_logp at the target.
    The only [N, V] tensors are the logits and their gradient; float32 scratch exists one block of rows at a time.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, targets: Tensor, mean: bool, entropy: bool, collision: bool):
        rows = logits.shape[0]
        column = [torch.zeros(rows, dtype=torch.float32, device=logits.device) for _ in range(5)]
        correct = torch.zeros(rows, dtype=torch.bool, device=logits.device)
        for part in _blocks(logits):
            z, t = logits[part].float(), targets[part, None]
            logps = torch.log_softmax(z, -1)
            picked = logps.gather(1, t)
            column[0][part], column[1][part] = picked[:, 0], (z.gather(1, t) - picked)[:, 0]
            if mean:
                column[2][part] = logps.mean(-1)
            if entropy:
                column[3][part] = -(logps.exp() * logps).sum(-1)
            if collision:
                column[4][part] = torch.logsumexp(2 * logps, -1)
            correct[part] = _most_likely(logps, t, picked)
        logp, total, average, spread, twice = column
        ctx.mean = mean
        ctx.save_for_backward(logits, targets, total, spread if entropy else None)
        ctx.mark_non_differentiable(correct, twice)
        return logp, total, average, spread, correct, twice

    @staticmethod
    def backward(ctx, g_logp, g_total, g_mean, g_entropy, _, __):
        logits, targets, total, entropy = ctx.saved_tensors
        grad = torch.empty_like(logits)
        direct = logits.dtype == torch.float32
        factor = g_total - g_logp - g_mean
        for part in _blocks(logits):
            p = torch.sub(logits[part].float(), total[part, None], out=grad[part] if direct else None)
            scale = factor[part, None]
            if entropy is not None:
                scale = scale - g_entropy[part, None] * (p + entropy[part, None])
            p.exp_().mul_(scale)
            if ctx.mean:
                p.add_(g_mean[part, None] / logits.shape[1])
            p.scatter_add_(1, targets[part, None], g_logp[part, None])
            if not direct:
                grad[part] = p
        return grad, None, None, None, None


def _most_likely(logps: Tensor, targets: Tensor, picked: Tensor) -> Tensor:
    """[n] bool: argmax equals the target. On CPU argmax is slow, so it is asked only for rows that reach the maximum."""
    if logps.device.type != 'cpu':
        return logps.argmax(-1) == targets[:, 0]
    found = picked[:, 0] >= logps.amax(-1)
    rows = found.nonzero()[:, 0]
    found[rows] = logps[rows].argmax(-1) == targets[rows, 0]
    return found


def _blocks(logits: Tensor):
    rows, vocab = logits.shape
    step = max(1, (CPU_BLOCK if logits.device.type == 'cpu' else DEVICE_BLOCK) // max(vocab, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


Row = tuple[Tensor, Tensor, Tensor, 'Tensor | None', 'Tensor | None', 'Tensor | None']


def statistics(logits: Tensor, targets: Tensor, want: Sequence[str] = ()) -> Row:
    """(logps, logsumexp, correct, mean_logps, entropy, collision) of logits [N, V] against targets [N]; all float32 but `correct`.

    The last three are None unless `want` names them. Differentiable once, but for `collision`.
    """
    mean, entropy, collision = 'mean_logps' in want, 'entropy' in want, 'collision' in want
    logp, total, average, spread, correct, twice = _Statistics.apply(logits, targets, mean, entropy, collision)
    return logp, total, correct, average if mean else None, spread if entropy else None, twice if collision else None


def chunked_statistics(
    head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, want: Sequence[str], rows: int, keep_rng: bool
) -> Row:
    """The same from hidden states [N, H], `rows` at a time: logits of a chunk are dropped and made again in backward.

    `head` maps [n, H] to [n, V]; it is a module call (never a raw weight), so adapters on it are respected.
    `keep_rng`: the head draws random numbers (dropout), which must be the same again.
    """

    def chunk(h: Tensor, t: Tensor) -> Row:
        return statistics(head(h), t, want)

    parts = []
    for start in range(0, max(hidden.shape[0], 1), rows):
        h, t = hidden[start : start + rows], targets[start : start + rows]
        if torch.is_grad_enabled():
            parts.append(checkpoint(chunk, h, t, use_reentrant=False, preserve_rng_state=keep_rng))
        else:
            parts.append(chunk(h, t))
    return tuple(None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True))


def answer_tokens(found: Answers, row: Row, want: Sequence[str]) -> AnswerTokens:
    """Put statistics and places together."""
    logps, total, correct, mean, entropy, collision = row
    return AnswerTokens(
        logps=logps,
        segment=found.segment,
        index=found.index,
        correct=correct,
        logsumexp=total if 'logsumexp' in want else None,
        mean_logps=mean,
        entropy=entropy,
        collision=collision,
    )
