"""Who judges sampled answers: reward functions by name, reward models by directory, or the answers themselves by majority."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from swift.core.errors import SwiftError
from swift.core.types import Conversation


@dataclass
class Candidate:
    """One distinct answer to a prompt."""

    message: dict[str, Any]
    votes: int = 1
    """How often it was drawn."""
    orm: float | None = None
    prm: float | None = None
    finish_reason: str | None = None

    @property
    def text(self) -> str:
        """What was said, without thoughts."""
        return self.message.get('content') or ''

    @property
    def whole(self) -> str:
        """What was said, with thoughts in front: what rewards judge."""
        thoughts = self.message.get('reasoning_content')
        return f'<think>{thoughts}</think>\n{self.text}' if thoughts else self.text


@dataclass
class Asked:
    """A prompt with its answers."""

    index: int
    talk: Conversation
    """Without the answer."""
    reference: str | None
    """The row's own answer. None: it has none."""
    candidates: list[Candidate]
    drawn: int = 0
    """Answers drawn, those included that say nothing (a thought that was cut off)."""


class FunctionJudge:
    """A reward function on candidates."""

    is_model = False

    def __init__(self, reward: Any):
        self._reward = reward

    def __call__(self, asked: Sequence[Asked]) -> list[list[float | None]]:
        """For each prompt the score of each of its candidates."""
        from swift.pipelines.eval_judge import columns_of

        pairs = [(each, candidate) for each in asked for candidate in each.candidates]
        columns = columns_of([each.talk for each, _ in pairs], [each.reference for each, _ in pairs])
        return _grouped(asked, self._reward([candidate.whole for _, candidate in pairs], columns))


class ModelJudge:
    """A reward model: it reads the conversation with the answer."""

    is_model = True

    def __init__(self, directory: str, max_batch_size: int):
        from swift.arguments import parse_args
        from swift.pipelines.infer import build_scorer

        args = parse_args('infer', {'model': directory, 'val_dataset': ['-'], 'max_batch_size': max_batch_size}, quiet=True)
        scorer = build_scorer(args)
        if scorer is None or not scorer.reward:
            raise SwiftError(f'{directory} is no reward model;', 'give the directory of a model that swift rlhf --rlhf_type rm trained, or the name of a reward')
        self._engine = scorer.engine

    def __call__(self, asked: Sequence[Asked]) -> list[list[float | None]]:
        """As FunctionJudge; an answer that can't be read (it is too long) gets None."""
        talks = [replace(each.talk, messages=[*each.talk.messages, candidate.message], rejected=None, negatives=None) for each in asked for candidate in each.candidates]
        results = self._engine.infer(talks)
        return _grouped(asked, [None if isinstance(result, SwiftError) else float(result['response']) for result in results])


def judge_of(spec: str | None, registry: Any, max_batch_size: int) -> Any:
    """The judge that --orm_model or --prm_model names; None for None. Raises SwiftError for what is neither a reward nor a directory."""
    from swift.rewards import load_reward

    if spec is None:
        return None
    if spec not in registry and os.path.isdir(spec):
        return ModelJudge(spec, max_batch_size)
    return FunctionJudge(load_reward(spec, registry))


def _grouped(asked: Sequence[Asked], scores: Sequence[float | None]) -> list[list[float | None]]:
    each = iter(scores)
    return [[next(each) for _ in item.candidates] for item in asked]


def distinct(messages: Sequence[tuple[dict[str, Any], str | None]]) -> list[Candidate]:
    """Answers (with their finish reasons) as candidates; equal ones are one with several votes. Empty ones are left out."""
    found: dict[str, Candidate] = {}
    for message, reason in messages:
        candidate = Candidate({key: value for key, value in message.items() if value is not None}, finish_reason=reason)
        if not candidate.text.strip() and not candidate.message.get('tool_calls'):
            continue
        key = f'{candidate.whole}\0{candidate.message.get("tool_calls")}'
        if key in found:
            found[key].votes += 1
        else:
            found[key] = candidate
    return list(found.values())


def majority(candidates: Sequence[Candidate]) -> set[int]:
    """The places of the candidates whose final answer was drawn most often; ties go to the one that was drawn first."""
    from swift.rewards import final_answer, same_answer

    groups: list[tuple[str, list[int]]] = []
    for index, candidate in enumerate(candidates):
        answer, _ = final_answer(candidate.text)
        for known, members in groups:
            if same_answer(answer, known):
                members.append(index)
                break
        else:
            groups.append((answer, [index]))
    votes = Counter({place: sum(candidates[index].votes for index in members) for place, (_, members) in enumerate(groups)})
    return set(groups[votes.most_common(1)[0][0]][1]) if groups else set()


@dataclass(frozen=True)
class Choice:
    """Which candidates of a prompt are kept (best first), and which one is the bad example. None: there is none."""

    kept: list[Candidate]
    rejected: Candidate | None
    share: float | None = None
    """Share of the drawn answers that are right. None: nothing judged them."""
    easy: bool = False
    """Left out because too many answers were right."""


def choose(asked: Asked, args: Any, bound: float | None) -> Choice:
    """What is kept of a prompt. `bound`: orm scores must be above it (None: no bound)."""
    candidates = asked.candidates
    judged = args.orm_model is not None
    right = [not judged or (c.orm is not None and (bound is None or c.orm > bound)) for c in candidates]
    share = sum(c.votes for c, good in zip(candidates, right, strict=True) if good) / max(asked.drawn, 1) if judged and bound is not None else None
    if args.easy_query_threshold is not None and share is not None and share > args.easy_query_threshold:
        return Choice([], None, share, easy=True)
    good = [index for index, fine in enumerate(right) if fine and (args.prm_model is None or (candidates[index].prm or 0.0) >= args.prm_threshold)]
    if args.sample_select == 'majority':
        agreed = majority(candidates)
        good = [index for index in good if index in agreed]
    order = sorted(range(len(candidates)), key=lambda index: _rank(candidates[index]), reverse=True)
    kept = [index for index in order if index in good][: args.n_best_to_keep]
    others = [index for index in order if index not in good] if judged or args.prm_model or args.sample_select == 'majority' else []
    if not others and bound is None and kept and (judged or args.prm_model):
        others = [index for index in order if index not in kept]
    worst = candidates[others[-1]] if others and kept else None
    if args.pairs_only and worst is None:
        kept = []
    return Choice([candidates[index] for index in kept], worst, share)


def _rank(candidate: Candidate) -> tuple[float, float, int]:
    lowest = float('-inf')
    return (candidate.prm if candidate.prm is not None else lowest, candidate.orm if candidate.orm is not None else lowest, candidate.votes)
