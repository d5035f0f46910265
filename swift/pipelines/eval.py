"""`swift eval`: questions with known answers, asked of a model here or behind a URL, and a report on what it said."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from swift.core.errors import RowError, SwiftError, did_you_mean
from swift.core.log import get_logger
from swift.pipelines.base import SwiftPipeline
from swift.pipelines.eval_judge import figures_of, judge_set, judges_of
from swift.pipelines.eval_kinds import Item
from swift.pipelines.eval_report import as_table, write_report
from swift.pipelines.eval_sets import EvalSet, read_sets
from swift.pipelines.ledger import Ledger

logger = get_logger()

ANSWERS, REPORT = 'answers.jsonl', 'report.json'


def eval_main(args: Any = None) -> dict[str, Any]:
    """Evaluate. `args`: None (sys.argv), a list of words, a mapping, or EvalArguments. Returns the report (see report.json)."""
    return SwiftEval(args).main()


class SwiftEval(SwiftPipeline):
    """The pipeline of `swift eval`. The model is loaded only if an answer is missing."""

    command = 'eval'

    def run(self) -> dict[str, Any]:
        """Ask, judge, report."""
        if self.args.eval_backend != 'Native':
            from swift.pipelines.eval_backends import run_backend

            return run_backend(self.args)
        self.sets = read_sets(self.args)
        for each in self.sets:
            judges_of(each.metrics, each.kind)  # unknown names are told before anything is asked
        _check_mode(self.args, self.sets)
        self.config = eval_config(self.args)
        settings = settings_of(self.args, self.sets, self.config)
        folder = folder_of(self.args, settings)
        started = time.perf_counter()
        with Ledger(os.path.join(folder, ANSWERS), settings) as ledger:
            if kept := len(ledger.done):
                logger.info('%d answers of an evaluation that was stopped are kept: %s', kept, folder)
            self._ask(ledger)
            report = self._report(ledger, settings, time.perf_counter() - started, kept)
        write_report(folder, report)
        print(as_table(report))
        logger.info('report: %s', os.path.join(folder, 'report.md'))
        return {**report, 'report_dir': folder}

    # -- asking

    def _ask(self, ledger: Ledger) -> None:
        from tqdm import tqdm

        wanted: list[tuple[str, Item]] = []
        for each in self.sets:
            for index, item in enumerate(each.items):
                key = f'{each.name}[{index}]'
                if key in ledger.done:
                    continue
                if isinstance(item, RowError):
                    if self.args.strict:
                        raise item
                    ledger.add(key, {'error': str(item)})
                else:
                    wanted.append((key, item))
        if not wanted:
            return
        source = build_source(self.args)
        answers = self._likelihoods(source, wanted) if self.args.eval_mode == 'likelihood' else self._generated(source, wanted)
        for (key, _), answer in zip(wanted, tqdm(answers, total=len(wanted), unit='answer', dynamic_ncols=True, disable=None), strict=True):
            if self.args.strict and isinstance(answer, SwiftError):
                raise answer
            ledger.add(key, {'error': str(answer)} if isinstance(answer, SwiftError) else answer)

    def _generated(self, engine: Any, wanted: list[tuple[str, Item]]) -> Iterator[dict[str, Any] | SwiftError]:
        base = self.config.seed
        # a seed for every question, by what it is: an evaluation that goes on asks as it would have
        asked = ((item.talk, replace(self.config, seed=None if base is None else base + _number(key))) for key, item in wanted)
        for answer in engine.infer_each(asked):
            if isinstance(answer, SwiftError):
                yield answer
                continue
            choice = answer.choices[0]
            row = {'response': choice.message.content or '', 'finish_reason': choice.finish_reason, 'tokens': answer.usage.completion_tokens if answer.usage else 0}
            yield {**row, 'reasoning': choice.message.reasoning_content} if choice.message.reasoning_content else row

    def _likelihoods(self, engine: Any, wanted: list[tuple[str, Item]]) -> Iterator[dict[str, Any] | SwiftError]:
        from swift.pipelines.eval_likelihood import Likelihoods

        for answer in Likelihoods(engine).each(item for _, item in wanted):
            yield answer if isinstance(answer, SwiftError) else {'response': answer['letter'], **answer}

    # -- judging

    def _report(self, ledger: Ledger, settings: dict[str, Any], seconds: float, kept: int) -> dict[str, Any]:
        parts = {each.name: _judged(each, ledger, self.args.eval_mode) for each in self.sets}
        rows = len(ledger.done) - kept
        tokens = sum(row.get('tokens') or 0 for row in list(ledger.done.values())[kept:])
        timings = {
            'rows': rows, 'tokens': tokens, 'seconds': round(seconds, 3), 'rows_per_second': round(rows / seconds, 2),
            'tokens_per_second': round(tokens / seconds, 1), 'kept_from_before': kept, 'finished': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
        }  # fmt: skip
        return {'model': settings['model'], 'datasets': parts, 'settings': settings, 'timings': timings}


def _judged(each: EvalSet, ledger: Ledger, mode: str) -> dict[str, Any]:
    """The part of the report on one data set."""
    rows = [ledger.done[f'{each.name}[{index}]'] for index in range(len(each.items))]
    items = [Item(_empty(item), None) if isinstance(item, RowError) else item for item in each.items]
    broken = [index for index, item in enumerate(each.items) if isinstance(item, RowError)]
    for index in broken:  # an unreadable row is a question not answered
        items[index] = replace(items[index], reference='')
    responses = [None if 'error' in row else row['response'] for row in rows]
    figures, scores = judge_set(responses, items, each.metrics, each.kind)
    if mode == 'likelihood':
        normed = [float(row.get('letter_norm') == item.reference) if item.reference is not None else None for row, item in zip(rows, items, strict=True)]
        figures |= figures_of({'accuracy_norm': normed})
        for score, value in zip(scores, normed, strict=True):
            score['accuracy_norm'] = value
    failed = sum('error' in row for row in rows)
    if failed:
        logger.warning('%s: %d of %d rows were not answered and count as wrong; the first: %s', each.name, failed, len(rows), next(r['error'] for r in rows if 'error' in r))
    unjudged = sum(item.reference is None for item in items)
    if unjudged:
        logger.warning('%s: %d of %d rows have no right answer and are not judged', each.name, unjudged, len(rows))
    part = {
        'kind': each.kind_name, **each.settings, 'failed': failed, 'unjudged': unjudged, 'cut': sum(row.get('finish_reason') == 'length' for row in rows),
        'metrics': figures,
    }  # fmt: skip
    if groups := _groups(items, scores):
        part['groups'] = groups
    return {**part, 'items': [_shown(index, item, row, score) for index, (item, row, score) in enumerate(zip(items, rows, scores, strict=True))]}


def _groups(items: list[Item], scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures for each value of the column that divides the rows; {} when there is only one."""
    names = list(dict.fromkeys(item.group for item in items if item.group is not None))
    if not 2 <= len(names) <= 100:
        return {}
    made = {}
    for name in names:
        own = [score for item, score in zip(items, scores, strict=True) if item.group == name]
        made[name] = figures_of({metric: [score.get(metric) for score in own] for metric in own[0]})
    return {name: figures for name, figures in made.items() if figures}


def _shown(index: int, item: Item, row: dict[str, Any], scores: dict[str, Any]) -> dict[str, Any]:
    from swift.dataset.media import kept

    messages = kept(item.talk).messages if item.talk.messages else []
    question = messages[-1].get('content') if messages else None
    rest = {key: value for key, value in row.items() if key != 'key'}
    return {'index': index, 'source': item.talk.source, 'question': question, 'reference': item.reference, 'response': None, **rest, 'scores': scores, 'messages': messages}


def _empty(error: RowError) -> Any:
    from swift.core.types import Conversation

    return Conversation([], source=error.source)


# ---- what is asked, and how


def build_source(args: Any) -> Any:
    """The engine that answers: the model here, or the server."""
    if args.eval_url:
        from swift.infer_engine.client import ClientEngine

        key = args.api_key or os.environ.get('OPENAI_API_KEY')
        return ClientEngine(args.eval_url, args.model, api_key=key, concurrency=args.eval_num_proc, system=args.system)
    from swift.pipelines.infer import build_engine
    from swift.pipelines.scoring import SCORING, task_of

    task = task_of(args)
    if task in SCORING:
        raise SwiftError(f'{args.model} answers with numbers ({task});', 'swift infer --val_dataset … --metric acc compares them with labels')
    return build_engine(args)


def eval_config(args: Any) -> Any:
    """The flags of generation, and --eval_generation_config over them, as a RequestConfig. Raises SwiftError for unknown keys."""
    from swift.infer_engine.protocol import RequestConfig
    from swift.pipelines.infer import request_config

    own = {{'max_new_tokens': 'max_tokens', 'stop_words': 'stop'}.get(key, key): value for key, value in args.eval_generation_config.items()}
    if own.pop('do_sample', None) is False:
        own.setdefault('temperature', 0)
    known = {f.name for f in fields(RequestConfig)} - {'stream', 'n', 'logprobs', 'top_logprobs', 'return_details'}
    for key in own:
        if key not in known:
            raise SwiftError(f'--eval_generation_config has no field {key!r};', did_you_mean(key, known) or f'known: {", ".join(sorted(known))}')
    plain = replace(args, logprobs=False, top_logprobs=None) if args.logprobs else args
    return replace(request_config(plain), **own).check()


def _number(key: str) -> int:
    return int(key.rpartition('[')[2][:-1])


def _check_mode(args: Any, sets: list[EvalSet]) -> None:
    if args.eval_mode == 'likelihood':
        for each in sets:
            if each.kind_name != 'choice':
                raise SwiftError(f'--eval_mode likelihood compares choices, and {each.name} has none (it is {each.kind_name});', 'leave it out, or generate')


@dataclass(frozen=True)
class _Identity:
    """What tells two models apart: where they are, and for files when they were written."""

    name: str
    files: list[Any]


def identity_of(args: Any) -> _Identity:
    """The model that is asked, by name and files."""
    names = [args.eval_url] if args.eval_url else []
    names += [*([args.model] if args.model else []), *args.adapters]
    files = []
    for folder in args.adapters + ([args.model] if args.model else []):
        if not args.eval_url and os.path.isdir(folder):
            states = [(name, os.stat(os.path.join(folder, name))) for name in sorted(os.listdir(folder)) if name.endswith(('.safetensors', '.bin', 'config.json'))]
            files += [[name, state.st_size, state.st_mtime_ns] for name, state in states]
    return _Identity(' + '.join(names), files)


def settings_of(args: Any, sets: list[EvalSet], config: Any) -> dict[str, Any]:
    """Everything that answers depend on; it stands in the report and names the folder."""
    identity = identity_of(args)
    generation = {f.name: getattr(config, f.name) for f in fields(config) if getattr(config, f.name) != f.default}
    model = {name: getattr(args, name) for name in ('torch_dtype', 'template', 'system', 'use_chat_template', 'enable_thinking', 'response_prefix', 'max_model_len')}
    return {
        'model': identity.name, 'mode': args.eval_mode, 'generation': generation, **{key: value for key, value in model.items() if value is not None},
        'data': {each.name: {'kind': each.kind_name, **{k: v for k, v in each.settings.items() if k != 'metrics'}, 'questions': _digest(each)} for each in sets},
        'files': hashlib.blake2b(json.dumps(identity.files).encode(), digest_size=8).hexdigest() if identity.files else None,
    }  # fmt: skip


def _digest(each: EvalSet) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for item in each.items:
        digest.update(str(item if isinstance(item, RowError) else item.talk.messages).encode())
    return digest.hexdigest()


def folder_of(args: Any, settings: dict[str, Any]) -> str:
    """The folder of this evaluation: an unfinished one with the same settings, else a new one."""
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=4).hexdigest()
    home = (args.adapters[0] if args.adapters else None) or args.model or 'server'
    name = '-'.join(part for part in os.path.normpath(home).split(os.sep)[-2:] if part not in ('.', '..'))
    base = os.path.join(args.eval_output_dir, f'{name}-{digest}')
    folder, number = base, 2
    while os.path.exists(os.path.join(folder, REPORT)):
        folder, number = f'{base}-{number}', number + 1
    return folder
