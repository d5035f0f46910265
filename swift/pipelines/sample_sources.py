"""Where sampled answers come from: an engine, a file of earlier answers, or a tree search through an engine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from swift.core.errors import RowError, SwiftError, did_you_mean
from swift.core.types import Conversation, Prompt
from swift.pipelines.sample_judge import Asked, Candidate, distinct
from swift.pipelines.sample_tree import TreeSearch

COUNTS = {'sample': 64, 'distill': 1, 'mcts': 4}
"""Answers of a prompt (mcts: steps of a node) unless --num_return_sequences says otherwise."""


def client_of(args: Any) -> Any:
    """The server of --engine_kwargs. Raises SwiftError for unknown keys."""
    from swift.infer_engine.client import ClientEngine

    known = {'base_url', 'api_key', 'concurrency', 'timeout', 'model'}
    for key in args.engine_kwargs:
        if key not in known:
            raise SwiftError(f'--engine_kwargs has no key {key!r};', did_you_mean(key, known) or f'known: {", ".join(sorted(known))}')
    settings = {'api_key': os.environ.get('OPENAI_API_KEY'), **args.engine_kwargs}
    return ClientEngine(settings.pop('base_url'), settings.pop('model', None) or args.model, system=args.system, **settings)


class Drawn:
    """n answers of an engine for each prompt."""

    def __init__(self, engine: Any, config: Any):
        self._engine, self._config = engine, config

    def __call__(self, batch: Sequence[Asked]) -> list[Asked | SwiftError]:
        """The prompts with their answers; a seed of its own for each, by its place in the data."""
        base = self._config.seed
        configs = (self._config if base is None else replace(self._config, seed=base + each.index * self._config.n) for each in batch)
        answers = self._engine.infer_each((each.talk, config) for each, config in zip(batch, configs, strict=True))
        return [answer if isinstance(answer, SwiftError) else replace(each, candidates=_candidates(answer), drawn=len(answer.choices)) for each, answer in zip(batch, answers, strict=True)]


def _candidates(answer: Any) -> list[Candidate]:
    return distinct([(dict(vars(choice.message)), choice.finish_reason) for choice in answer.choices])


class Cached:
    """Answers drawn before: each row has `messages` up to the question, and `choices` (texts or messages)."""

    def __call__(self, batch: Sequence[Asked]) -> list[Asked | SwiftError]:
        """The prompts with their answers."""
        return [self._one(each) for each in batch]

    @staticmethod
    def _one(each: Asked) -> Asked | SwiftError:
        choices = each.talk.columns.get('choices')
        if not isinstance(choices, list) or not choices:
            return RowError('a row of --cache_files needs choices: a list of answers', each.talk.source)
        messages = [choice if isinstance(choice, dict) else {'role': 'assistant', 'content': str(choice)} for choice in choices]
        columns = {key: value for key, value in each.talk.columns.items() if key != 'choices'}
        return replace(each, talk=replace(each.talk, columns=columns), candidates=distinct([(message, None) for message in messages]), drawn=len(messages))


class Searched:
    """A tree search for each prompt: steps are generated, whole answers are judged, and those found are the candidates."""

    def __init__(self, engine: Any, config: Any, args: Any, orm: Any, prm: Any):
        self._engine, self._args, self._orm, self._prm = engine, args, orm, prm
        self._config = replace(config, n=1, max_tokens=args.step_tokens)
        self._width = args.num_return_sequences or COUNTS['mcts']
        self._stops = list(args.stop_words) or ['\n']
        self._drawn = 0
        self._whole: dict[tuple[int, ...], float] = {}
        """Whole answers of the search that is under way, steps of the tree and ends of rollouts, with their values."""

    def __call__(self, batch: Sequence[Asked]) -> list[Asked | SwiftError]:
        """The prompts with the answers that were found."""
        return [self._one(each) for each in batch]

    def _one(self, each: Asked) -> Asked | SwiftError:
        try:
            prompt = self._engine.template.prompt(each.talk)
        except SwiftError as error:
            return error
        self._drawn, self._whole = 0, {}
        one = self._args.n_best_to_keep == 1 and self._orm is not None and not self._orm.is_model
        enough = (lambda: max(self._whole.values(), default=0.0) >= 1.0) if one else None  # nothing better is to be found
        search = TreeSearch(
            (), lambda ids: self._steps(prompt, ids, each.index), lambda grown: self._values(prompt, each, grown),
            exploration=self._args.exploration_rate, iterations=self._args.max_iterations, depth=self._args.rollout_depth, enough=enough,
        )  # fmt: skip
        search.run()
        ends = [(self._message(ids), 'stop') for ids in sorted(self._whole, key=self._whole.__getitem__, reverse=True)]
        return replace(each, candidates=distinct(ends), drawn=len(ends))

    def _continued(self, prompt: Prompt, beginnings: Sequence[tuple[int, ...]], index: int, **changes: Any) -> list[Any]:
        """One completion of each beginning, each with a seed of its own."""
        prompts = [replace(prompt, input_ids=[*prompt.input_ids, *ids]) for ids in beginnings]
        configs = []
        for _ in beginnings:
            seed = None if self._config.seed is None else self._config.seed + 1_000_003 * index + self._drawn
            configs.append(replace(self._config, seed=seed, **changes))
            self._drawn += 1
        found = self._engine.generate(prompts, configs, [None] * len(prompts))
        for item in found:
            if isinstance(item, SwiftError):
                raise item
        return [item[0] for item in found]

    def _steps(self, prompt: Prompt, ids: tuple[int, ...], index: int) -> list[tuple[tuple[int, ...], bool]]:
        """Distinct next steps; a step is finished when the model ended its turn rather than the line."""
        room = self._engine.max_model_len
        if room is not None and len(prompt.input_ids) + len(ids) + 1 >= room:
            return []
        found: dict[tuple[int, ...], bool] = {}
        for completion in self._continued(prompt, [ids] * self._width, index, stop=self._stops):
            whole = (*ids, *completion.token_ids)
            if len(whole) > len(ids):
                found.setdefault(whole, self._ended(prompt, completion))
        return list(found.items())

    def _ended(self, prompt: Prompt, completion: Any) -> bool:
        """Whether the turn is over: it stopped, and not at one of the step's own marks."""
        if completion.finish_reason != 'stop':
            return False
        text = self._engine.tokenizer.decode(completion.token_ids)
        return not any(mark in text for mark in self._stops)

    def _values(self, prompt: Prompt, each: Asked, grown: Sequence[tuple[tuple[int, ...], bool]]) -> list[float]:
        """Finished answers by the outcome reward, others by that of one rollout; the process reward mixed in."""
        rate = self._args.process_reward_rate if self._prm is not None else 0.0
        rate = 1.0 if self._orm is None else rate
        open_ = [ids for ids, finished in grown if not finished]
        rollouts: dict[tuple[int, ...], tuple[int, ...]] = {}
        ends: list[Any] = []
        if open_ and rate < 1.0:
            longest = self._args.step_tokens * max(self._args.rollout_depth - 1, 1)
            ends = self._continued(prompt, open_, each.index, max_tokens=longest, stop=None)
            rollouts = {ids: (*ids, *end.token_ids) for ids, end in zip(open_, ends, strict=True)}
        done = {rollouts[ids] for ids, end in zip(rollouts, ends, strict=True) if end.finish_reason == 'stop'}
        outcome = self._scores(self._orm, each, [rollouts.get(ids, ids) for ids, _ in grown]) if rate < 1.0 else [0.0] * len(grown)
        process = self._scores(self._prm, each, [ids for ids, _ in grown]) if rate > 0.0 else [0.0] * len(grown)
        values = [(1 - rate) * mine + rate * other for mine, other in zip(outcome, process, strict=True)]
        for (ids, finished), value in zip(grown, values, strict=True):
            whole = rollouts.get(ids, ids)
            if finished or whole in done:
                self._whole[whole] = max(value, self._whole.get(whole, value))
        return values

    def _scores(self, judge: Any, each: Asked, answers: Sequence[tuple[int, ...]]) -> list[float]:
        candidates = [Candidate(self._message(ids)) for ids in answers]
        return [score or 0.0 for score in judge([replace(each, candidates=candidates)])[0]]

    def _message(self, ids: tuple[int, ...]) -> dict[str, Any]:
        from swift.core.types import Completion
        from swift.infer_engine.base import to_message
        from swift.infer_engine.streaming import as_said

        text = self._engine.tokenizer.decode(list(ids), skip_special_tokens=True)
        said = as_said(Completion(list(ids), text, 'stop'), self._engine.tokenizer)
        message = vars(to_message(self._engine.template.decode(said)))
        return {key: value for key, value in message.items() if value is not None}


def shared(rows: Any, data_range: Sequence[int]) -> Iterator[int]:
    """The places of the rows that are this machine's part."""
    if not data_range:
        return iter(range(len(rows)))
    part, parts = data_range
    return iter(range(len(rows) * part // parts, len(rows) * (part + 1) // parts))


def without_answer(talk: Conversation) -> tuple[Conversation, str | None]:
    """(what is asked, the reference): the row's `solution`, else its own answer. Raises RowError."""
    from swift.pipelines.infer import question_of

    asked, answer = question_of(replace(talk, rejected=None))
    reference = talk.columns.get('solution', answer)
    return asked, None if reference is None else str(reference)
