"""The next token of many answers at once, each with its own settings.

Order of the filters, as in transformers: penalties, the tokens that a guide allows, temperature, top_k, top_p, min_p; then one draw by inverse
distribution function from the row's own random numbers, so that neighbours in the batch change nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from swift.core.errors import SwiftError
from swift.core.types import Prompt
from swift.infer_engine.loading import ids_of
from swift.infer_engine.protocol import RequestConfig

if TYPE_CHECKING:
    from swift.infer_engine.guided import Guide

FIRST_CANDIDATES = 256
"""How many of the likeliest tokens are looked at first where only top_p limits them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A request's config with nothing left open. Made by the engine, read by the sampler and the rows."""

    max_tokens: int
    temperature: float = 0.0
    """0: greedy, and the filters play no part."""
    top_k: int = 0
    """0: all."""
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    logprobs: bool = False
    top_logprobs: int = 0
    stop_ids: frozenset[int] = frozenset()
    stops: tuple[str, ...] = ()
    num_beams: int = 1
    length_penalty: float = 1.0

    @property
    def penalised(self) -> bool:
        """Whether tokens seen before change the logits."""
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


def settled(prompt: Prompt, config: RequestConfig, generation: Any, tokenizer: Any, longest: int | None) -> Settings:
    """The config with everything that is open filled from the model's generation config, the prompt's template and `longest`, the context.

    A stop text that is one added token stops by its id (it never appears in the text of an answer). Raises SwiftError where nothing bounds
    the answer.
    """
    room = None if longest is None else longest - len(prompt.input_ids)
    wanted = config.max_tokens or generation.max_new_tokens or room
    if wanted is None:
        raise SwiftError('the model does not say how long its context is;', 'set max_tokens')

    def value(name: str, off: float) -> float:
        asked, stored = getattr(config, name), getattr(generation, name, None)
        return asked if asked is not None else stored if stored is not None else off

    temperature = config.temperature
    if temperature is None:
        temperature = (1.0 if generation.temperature is None else generation.temperature) if generation.do_sample else 0.0
    ids: set[int] = set()
    stops = [] if config.ignore_eos else [*prompt.stop, *config.stops]
    if not config.ignore_eos:
        ids |= {*prompt.stop_token_ids, *ids_of(generation.eos_token_id), *(config.stop_token_ids or [])}
    if stops:
        added = tokenizer.get_added_vocab()
        ids |= {added[text] for text in stops if text in added}
        stops = [text for text in stops if text not in added]
    return Settings(
        max_tokens=min(wanted, room) if room is not None else wanted,
        temperature=float(temperature),
        top_k=max(0, int(value('top_k', 0))),
        top_p=float(value('top_p', 1.0)),
        min_p=float(value('min_p', 0.0)),
        repetition_penalty=float(value('repetition_penalty', 1.0)),
        presence_penalty=config.presence_penalty,
        frequency_penalty=config.frequency_penalty,
        seed=random.SystemRandom().getrandbits(63) if config.seed is None else config.seed,
        logprobs=config.logprobs,
        top_logprobs=config.top_logprobs or 0,
        stop_ids=frozenset(ids),
        stops=tuple(stops),
        num_beams=config.num_beams,
        length_penalty=config.length_penalty,
    )


class Seen:
    """The tokens of one penalised row: `prompt_or_answer` [V] bool, `counts` [V] float32 of the answer alone."""

    def __init__(self, prompt: Sequence[int], answer: Sequence[int], vocab: int, device: torch.device):
        self.any = torch.zeros(vocab, dtype=torch.bool, device=device)
        self.counts = torch.zeros(vocab, device=device)
        if prompt:
            self.any[torch.tensor(prompt, device=device)] = True
        for token in answer:
            self.add(token)

    def add(self, token: int) -> None:
        """Count one more token of the answer."""
        self.any[token] = True
        self.counts[token] += 1


class Sampler:
    """Draws for a fixed list of rows; built again whenever the list changes.

    `settings` has one entry a row; `seen` the `Seen` of penalised rows (else None); `random` a callable a row that
    gives the next uniform number in [0, 1); `guides` the `Guide` of rows whose answer must have a form (else None).
    """

    def __init__(
        self,
        settings: Sequence[Settings],
        seen: Sequence[Seen | None],
        random: Sequence,
        device: torch.device,
        guides: Sequence[Guide | None] = (),
    ):
        self._random, self._device = list(random), device
        self._guided = [(i, g) for i, g in enumerate(guides) if g is not None]
        self._seen = [(i, s) for i, s in enumerate(seen) if s is not None]
        if self._seen:
            some = [settings[i] for i, _ in self._seen]
            self._repetition = self._column([s.repetition_penalty for s in some])
            self._presence = self._column([s.presence_penalty for s in some])
            self._frequency = self._column([s.frequency_penalty for s in some])
        drawn = [i for i, s in enumerate(settings) if s.temperature > 0]
        self._all_greedy = not drawn
        self._limited = [i for i in drawn if settings[i].top_k > 0 or settings[i].top_p < 1]
        self._whole = [i for i in drawn if settings[i].top_k <= 0 and settings[i].top_p >= 1]
        self._groups = []
        for group in (self._limited, self._whole):
            some = [settings[i] for i in group]
            self._groups.append(
                {
                    'index': torch.tensor(group, dtype=torch.long, device=device),
                    'temperature': self._column([s.temperature for s in some]),
                    'top_p': self._column([s.top_p for s in some]),
                    'min_p': self._column([s.min_p for s in some]),
                    'top_k': torch.tensor([s.top_k for s in some], dtype=torch.long, device=device).unsqueeze(1),
                    'needs_all': any(s.top_k <= 0 for s in some),
                    'most': max((s.top_k for s in some), default=0),
                }
            )
        self._logged = [i for i, s in enumerate(settings) if s.logprobs]
        self._most_logged = max((settings[i].top_logprobs for i in self._logged), default=0)

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device).unsqueeze(1)

    def draw(self, logits: Tensor) -> list[int]:
        """One token id for each row of `logits` [n, V]."""
        logits = self._penalise(logits.float())
        if self._guided:
            logits = self._guide(logits)
        chosen = logits.argmax(-1)
        if not self._all_greedy:
            for rows, group, draw in zip(
                (self._limited, self._whole), self._groups, (self._draw_limited, self._draw_whole), strict=True
            ):
                if rows:
                    uniform = torch.tensor([self._random[i]() for i in rows], dtype=torch.float64, device=self._device)
                    scaled = logits[group['index']] / group['temperature']
                    chosen[group['index']] = draw(scaled, uniform.unsqueeze(1), group)
        return chosen.tolist()

    def _penalise(self, logits: Tensor) -> Tensor:
        if not self._seen:
            return logits
        index = torch.tensor([i for i, _ in self._seen], device=self._device)
        some = logits[index]
        seen = torch.stack([s.any for _, s in self._seen])
        counts = torch.stack([s.counts for _, s in self._seen])
        weakened = torch.where(some > 0, some / self._repetition, some * self._repetition)
        some = torch.where(seen, weakened, some) - counts * self._frequency - (counts > 0) * self._presence
        logits = logits.clone()
        logits[index] = some
        return logits

    def _guide(self, logits: Tensor) -> Tensor:
        """The logits with those of tokens that a guide does not allow at -inf; other rows as they are."""
        vocab = logits.shape[1]
        bits = torch.from_numpy(np.stack([guide.allowed(vocab) for _, guide in self._guided])).to(self._device)
        places = torch.arange(8, dtype=torch.uint8, device=self._device)
        allowed = (bits.unsqueeze(-1) >> places & 1).flatten(1)[:, :vocab].bool()
        index = torch.tensor([i for i, _ in self._guided], device=self._device)
        return logits.index_copy(0, index, logits[index].masked_fill(~allowed, float('-inf')))

    @staticmethod
    def _draw_whole(scaled: Tensor, uniform: Tensor, group: dict) -> Tensor:
        probs = torch.softmax(scaled, -1)
        probs = probs.masked_fill(probs < group['min_p'] * probs.amax(-1, keepdim=True), 0)
        mass = probs.double().cumsum(-1)
        return torch.searchsorted(mass, uniform * mass[:, -1:], right=True).clamp_(max=scaled.shape[1] - 1).squeeze(1)

    @staticmethod
    def _draw_limited(scaled: Tensor, uniform: Tensor, group: dict) -> Tensor:
        vocab = scaled.shape[1]
        has_k = group['top_k'] > 0
        whole = torch.logsumexp(scaled, -1, keepdim=True)
        size = min(vocab, max(group['most'], FIRST_CANDIDATES if group['needs_all'] else 1))
        while True:
            values, ids = torch.topk(scaled, size, dim=-1)  # likeliest first
            inside = ~has_k | (torch.arange(size, device=scaled.device) < group['top_k'])
            values = values.masked_fill(~inside, float('-inf'))
            probs = (values - torch.where(has_k, torch.logsumexp(values, -1, keepdim=True), whole)).exp().double()
            mass = probs.cumsum(-1)
            if size == vocab or not group['needs_all'] or bool((has_k | (mass[:, -1:] >= group['top_p'])).all()):
                break
            size = min(vocab, size * 8)
        keep = (mass - probs < group['top_p']) & (probs >= group['min_p'] * probs[:, :1])
        keep[:, 0] = True
        mass = (probs * keep).cumsum(-1)
        place = torch.searchsorted(mass, uniform * mass[:, -1:], right=True).clamp_(max=size - 1)
        return ids.gather(1, place).squeeze(1)

    def logprobs(self, logits: Tensor, chosen: list[int]) -> dict[int, tuple[float, list[tuple[int, float]]]]:
        """For rows that ask: row → (log-probability of the token chosen, [(id, log-probability) of the likeliest])."""
        if not self._logged:
            return {}
        some = logits[torch.tensor(self._logged, device=logits.device)].float()
        logps = torch.log_softmax(some, -1)
        picked = torch.tensor([chosen[i] for i in self._logged], device=logits.device).unsqueeze(1)
        own = logps.gather(1, picked).squeeze(1).tolist()
        tops: list[list[tuple[int, float]]] = [[] for _ in self._logged]
        if self._most_logged:
            values, ids = logps.topk(min(self._most_logged, logps.shape[1]), dim=-1)
            tops = [list(zip(i, v, strict=True)) for i, v in zip(ids.tolist(), values.tolist(), strict=True)]
        return {row: (own[j], tops[j]) for j, row in enumerate(self._logged)}
