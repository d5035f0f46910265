"""Our filters leave the distribution that transformers' logits processors leave, for every row by itself."""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from swift.infer_engine.sampling import Sampler, Seen, Settings

VOCAB = 500
DRAWS = 400
CPU = torch.device('cpu')


def expected(logits, settings, ids):
    """Probabilities by transformers."""
    steps = []
    if settings.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    steps.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        steps.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        steps.append(TopPLogitsWarper(settings.top_p))
    if settings.min_p:
        steps.append(MinPLogitsWarper(settings.min_p))
    return torch.softmax(LogitsProcessorList(steps)(torch.tensor([ids]), logits[None].clone()), -1)[0].double()


SETTINGS = [
    Settings(1, temperature=1.0),
    Settings(1, temperature=0.3),
    Settings(1, temperature=1.0, top_k=5),
    Settings(1, temperature=0.7, top_k=40, top_p=0.8),
    Settings(1, temperature=1.0, top_p=0.5),
    Settings(1, temperature=3.0, top_p=0.999),
    Settings(1, temperature=1.0, min_p=0.2),
    Settings(1, temperature=1.5, top_k=30, top_p=0.9, min_p=0.05),
    Settings(1, temperature=0.9, top_p=0.7, repetition_penalty=1.8),
    Settings(1, temperature=1.0, top_k=10**6, repetition_penalty=0.6),
]


def draws_of(logits, settings, uniform, seen=None):
    """What each setting draws where the random number is `uniform`."""
    sampler = Sampler(settings, seen or [None] * len(settings), [lambda: uniform] * len(settings), CPU)
    return sampler.draw(logits)


def test_draws_follow_transformers_distribution_row_by_row():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(SETTINGS), VOCAB, generator=generator) * 2
    ids = [3, 7, 7, 100, 250]
    seen = [Seen(ids, [], VOCAB, CPU) if s.penalised else None for s in SETTINGS]
    wanted = torch.stack([expected(row, s, ids) for row, s in zip(logits, SETTINGS, strict=True)])
    counts = torch.zeros_like(wanted)
    for index in range(DRAWS):
        for row, token in enumerate(draws_of(logits, SETTINGS, (index + 0.5) / DRAWS, seen)):
            counts[row, token] += 1
    # evenly spaced numbers through the inverse distribution function: each count is within 1 of its share
    assert (counts - wanted * DRAWS).abs().max() <= 1.0
    assert ((counts > 0) <= (wanted > 0)).all()


def test_a_flat_distribution_looks_at_all_tokens_that_top_p_wants():
    logits = torch.zeros(1, 3000) + torch.arange(3000) * 1e-5
    drawn = {draws_of(logits, [Settings(1, temperature=1.0, top_p=0.9)], (i + 0.5) / 1000)[0] for i in range(1000)}
    assert min(drawn) > 280  # the least likely tenth is left out
    assert min(drawn) < 320


def test_presence_and_frequency_penalties_count_the_answer_only():
    seen = Seen([1, 2], [3, 3, 4], 10, CPU)
    settings = [Settings(1, temperature=0, presence_penalty=0.5, frequency_penalty=0.25)]
    sampler = Sampler(settings, [seen], [lambda: 0.0], CPU)
    found = sampler._penalise(torch.ones(1, 10))[0].tolist()
    assert found == [1, 1, 1, 1 - 0.5 - 2 * 0.25, 1 - 0.5 - 0.25, 1, 1, 1, 1, 1]


def test_a_repetition_penalty_weakens_either_sign():
    sampler = Sampler([Settings(1, repetition_penalty=2.0)], [Seen([0, 1], [2], 4, CPU)], [lambda: 0.0], CPU)
    assert sampler._penalise(torch.tensor([[3.0, -3.0, 1.0, 5.0]])).tolist() == [[1.5, -6.0, 0.5, 5.0]]


def test_greedy_rows_beside_drawn_ones():
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(1))
    mixed = [Settings(1), Settings(1, temperature=1.0, top_k=3), Settings(1)]
    assert draws_of(logits, mixed, 0.99)[::2] == logits.argmax(-1).tolist()[::2]
    assert draws_of(logits, mixed, 0.0)[1] == logits[1].argmax().item()


def test_logprobs_are_of_the_plain_logits():
    logits = torch.randn(2, VOCAB, generator=torch.Generator().manual_seed(2)) * 3
    settings = [Settings(1, temperature=0.1), Settings(1, logprobs=True, top_logprobs=4, temperature=5.0)]
    sampler = Sampler(settings, [None, None], [lambda: 0.7] * 2, CPU)
    found = sampler.logprobs(logits, [5, 6])
    assert list(found) == [1]
    own, top = found[1]
    logps = torch.log_softmax(logits[1].double(), -1)
    assert own == pytest.approx(logps[6].item(), abs=1e-5)
    assert [i for i, _ in top] == logps.topk(4).indices.tolist()
