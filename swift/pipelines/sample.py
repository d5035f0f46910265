"""`swift sample`: many answers to every prompt, judged; the best become rows to train on (sft), with a bad one beside them (dpo)."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Any

from swift.core.errors import DatasetError, RowError, SwiftError
from swift.core.jsonl import write_jsonl
from swift.core.log import get_logger
from swift.pipelines.base import SwiftPipeline
from swift.pipelines.ledger import Ledger
from swift.pipelines.sample_judge import Asked, Candidate, Choice, choose, judge_of, majority
from swift.pipelines.sample_sources import COUNTS, Cached, Drawn, Searched, client_of, shared, without_answer

logger = get_logger()

PART = '.part'
"""Ending of the file that holds what was sampled so far."""


def sample_main(args: Any = None) -> dict[str, Any]:
    """Sample. `args`: None (sys.argv), a list of words, a mapping, or SampleArguments.

    Returns `output_file` and counts: prompts, answers, rows, right (share of right answers), solved (share of prompts with one), …
    """
    return SwiftSample(args).main()


class SwiftSample(SwiftPipeline):
    """The pipeline of `swift sample`."""

    command = 'sample'

    def run(self) -> dict[str, Any]:
        """Draw, judge, keep, write."""
        from swift.dataset.bad_rows import BadRows

        args = self.args
        output = output_path(args)
        self.rows = read_prompts(args)
        self.judges = judges_of(args)
        self.bound = args.orm_threshold if args.orm_threshold is not None else (None if self.judges[0] is None or self.judges[0].is_model else 0.0)
        self.bad_rows = BadRows(strict=args.strict)
        started = time.perf_counter()
        with Ledger(output + PART, settings_of(args, self.rows)) as ledger:
            if ledger.done:
                logger.info('%d prompts were sampled before: %s', len(ledger.done), output + PART)
            self._all(ledger)
            self.bad_rows.finish()
            found = sorted(ledger.done.values(), key=lambda row: int(row['key']))
        rows = unique([row for entry in found for row in entry['rows']])
        write_jsonl(output, rows)
        os.unlink(output + PART)
        report = {'output_file': output, **summary(found), 'rows': len(rows), 'seconds': round(time.perf_counter() - started, 2)}
        print(as_text(report))
        logger.info('rows to train on: %s', output)
        return report

    def _all(self, ledger: Ledger) -> None:
        from tqdm import tqdm

        args = self.args
        wanted = (index for index in places(self.rows, args) if str(index) not in ledger.done)
        total = sum(1 for _ in places(self.rows, args)) - len(ledger.done)
        if total <= 0:
            return
        source = source_of(args, *self.judges)
        with tqdm(total=total, unit='prompt', dynamic_ncols=True, disable=None) as bar:
            while batch := list(islice(wanted, args.num_sampling_batch_size)):
                for index, entry in self._batch(source, batch):
                    ledger.add(str(index), entry)
                bar.update(len(batch))

    def _batch(self, source: Any, places: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """What the ledger keeps of each prompt of a batch."""
        asked = [item for index in places if (item := self._asked(index)) is not None]
        answered = []
        for each, found in zip(asked, source(asked), strict=True):
            if isinstance(found, SwiftError):
                self.bad_rows.add(found if isinstance(found, RowError) else RowError(str(found), each.talk.source))
            else:
                answered.append(found)
                self.bad_rows.good()
        self._judge(answered)
        done = {each.index: entry_of(each, choose(each, self.args, self.bound), self.args) for each in answered}
        nothing = {'rows': [], 'bad': True}
        yield from ((index, done.get(index, nothing)) for index in places)

    def _asked(self, index: int) -> Asked | None:
        try:
            talk, reference = without_answer(self.rows[index])
            return Asked(index, talk, reference, [])
        except RowError as error:
            self.bad_rows.add(error)
            return None

    def _judge(self, answered: Sequence[Asked]) -> None:
        for name, judge in zip(('orm', 'prm'), self.judges, strict=True):
            if judge is None or not answered:
                continue
            for each, scores in zip(answered, judge(answered), strict=True):
                each.candidates[:] = [replace(c, **{name: score}) for c, score in zip(each.candidates, scores, strict=True)]


def judges_of(args: Any) -> tuple[Any, Any]:
    """The judges of --orm_model and --prm_model."""
    from swift.rewards import orms, prms

    return judge_of(args.orm_model, orms, args.max_batch_size), judge_of(args.prm_model, prms, args.max_batch_size)


def source_of(args: Any, orm: Any, prm: Any) -> Any:
    """Where answers come from."""
    from swift.arguments.answer_rules import draws_from_server
    from swift.pipelines.infer import build_engine, request_config

    if args.sampler_engine == 'no':
        return Cached()
    plain = replace(args, logprobs=False, top_logprobs=None) if args.logprobs else args
    config = replace(request_config(plain), n=args.num_return_sequences or COUNTS[args.sampler_type])
    if draws_from_server({'sampler_engine': args.sampler_engine, 'sampler_type': args.sampler_type}):
        return Drawn(client_of(args), config)
    engine = build_engine(args)
    return Searched(engine, config, args, orm, prm) if args.sampler_type == 'mcts' else Drawn(engine, config)


def read_prompts(args: Any) -> Any:
    """The rows to answer. Raises DatasetError."""
    from swift.dataset.load import load_dataset

    given = args.dataset or args.cache_files
    wanted = replace(args, dataset=given, val_dataset=[], split_dataset_ratio=0.0, streaming=False)
    rows = load_dataset(wanted, seed=args.data_seed, use_hf=args.use_hf, hub_token=args.hub_token, root_image_dir=args.root_image_dir).train
    if rows is None or not len(rows):
        raise DatasetError('there is nothing to sample;', 'give --dataset')
    return rows


def places(rows: Any, args: Any) -> Iterator[int]:
    """The places of the prompts that are sampled."""
    most = None if args.num_sampling_batches is None else args.num_sampling_batches * args.num_sampling_batch_size
    return islice(shared(rows, args.data_range), most)


def output_path(args: Any) -> str:
    """Where the result goes. Raises SwiftError when something is there that was not to be written over, or to be gone on with."""
    path = os.path.join(args.output_dir, args.output_file or f'{time.strftime("%Y%m%d-%H%M%S")}.jsonl')
    if args.resume and not args.output_file:
        raise SwiftError('--resume true goes on with a file;', 'name it: --output_file')
    if args.override_exist_file:
        for old in (path, path + PART):
            if os.path.exists(old):
                os.unlink(old)
    if os.path.exists(path):
        raise SwiftError(f'{path} exists already;', 'choose another --output_file, or --override_exist_file true')
    if os.path.exists(path + PART) and not args.resume:
        raise SwiftError(f'{path} was begun and stopped;', 'go on with --resume true, or start anew with --override_exist_file true')
    return path


IDLE = {'resume', 'override_exist_file', 'output_dir', 'output_file', 'max_batch_size', 'num_sampling_batches', 'num_sampling_batch_size', 'strict',
        'prefix_cache_tokens', 'hub_token', 'ignore_args_error', 'dataset_num_proc', 'engine_kwargs', 'load_args', 'load_data_args', 'device_map', 'max_memory'}  # fmt: skip
"""Arguments that don't change what is sampled."""


def settings_of(args: Any, rows: Any) -> dict[str, Any]:
    """What the result depends on: a part with other settings is not gone on with."""
    defaults = {f.name: f.default for f in fields(args)}
    given = {name: value for name, value in args.to_dict().items() if name not in IDLE and value != defaults[name] and value not in ([], {})}
    digest = hashlib.blake2b(json.dumps([len(rows), args.dataset, args.cache_files], default=str).encode(), digest_size=8)
    return {**given, 'rows': digest.hexdigest()}


# ---- rows


def entry_of(asked: Asked, choice: Choice, args: Any) -> dict[str, Any]:
    """What the ledger keeps of a prompt: the rows it gives, and what the summary counts."""
    from swift.dataset.convert import to_row

    base = to_row(asked.talk)
    rows = [_row(base, candidate, choice.rejected) for candidate in choice.kept]
    entry: dict[str, Any] = {'rows': rows, 'answers': asked.drawn, 'distinct': len(asked.candidates), 'easy': choice.easy}
    if choice.share is not None:
        entry['right'] = choice.share
    if args.orm_model is not None and choice.kept:
        entry['best'] = choice.kept[0].orm
    if args.sample_select == 'majority' and asked.reference is not None and asked.candidates:
        entry['agreed'] = _agrees(asked)
    return entry


def _agrees(asked: Asked) -> bool:
    """Whether the answer that most agree on is the row's own."""
    from swift.rewards import load_reward

    best = asked.candidates[min(majority(asked.candidates))]
    return load_reward('accuracy')([best.text], {'solution': [asked.reference]}) == [1.0]


def _row(base: dict[str, Any], kept: Candidate, rejected: Candidate | None) -> dict[str, Any]:
    row = {**base, 'messages': [*base['messages'], kept.message], 'votes': kept.votes}
    row.update({name: score for name, score in (('orm', kept.orm), ('prm', kept.prm)) if score is not None})
    return {**row, 'rejected_response': rejected.whole} if rejected is not None else row


def unique(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without those whose messages were there before."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        key = json.dumps([row['messages'], row.get('tools')], sort_keys=True, ensure_ascii=False)
        if key not in seen:
            seen.add(key)
            kept.append(row)
    return kept


def summary(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts over the prompts that were answered."""
    good = [entry for entry in entries if not entry.get('bad')]
    made: dict[str, Any] = {'prompts': len(good), 'bad': len(entries) - len(good), 'answers': sum(entry['answers'] for entry in good)}
    made['distinct'] = sum(entry['distinct'] for entry in good)
    made['without_row'] = sum(not entry['rows'] for entry in good)
    made['pairs'] = sum('rejected_response' in row for entry in good for row in entry['rows'])
    if easy := sum(entry['easy'] for entry in good):
        made['easy'] = easy
    for name, key, value in (('right', 'right', lambda share: share), ('solved', 'right', lambda share: float(share > 0)), ('majority_right', 'agreed', float)):
        if values := [value(entry[key]) for entry in good if key in entry]:
            made[name] = round(sum(values) / len(values), 6)
    return made


def as_text(report: dict[str, Any]) -> str:
    """One line."""
    pairs = f' ({report["pairs"]} with a rejected answer)' if report.get('pairs') else ''
    parts = [f'{report["prompts"]} prompts', f'{report["answers"]} answers ({report["distinct"]} distinct)', f'{report["rows"]} rows{pairs}']
    words = {'right': 'answers right', 'solved': 'prompts with a right answer', 'majority_right': 'majority right'}
    parts += [f'{text} {report[name]:.1%}' for name, text in words.items() if name in report]
    parts += [f'{report[name]} {text}' for name, text in (('easy', 'too easy'), ('bad', 'bad'), ('without_row', 'gave no row')) if report.get(name)]
    return ', '.join(parts)
