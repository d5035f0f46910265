"""`swift infer`: ask a model in the terminal, or let it answer the rows of a file; in words, or with numbers (`scoring`)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from swift.arguments.methods import METHODS
from swift.core.errors import DatasetError, RowError, SwiftError
from swift.core.jsonl import append_to_jsonl
from swift.core.log import get_logger
from swift.core.media import is_medium
from swift.pipelines.base import SwiftPipeline

logger = get_logger()

SPLIT_FILE = 'val_dataset.jsonl'
"""Where a training run keeps the rows that it split off for validation."""


def infer_main(args: Any = None) -> list[dict[str, Any]]:
    """Answer. `args`: None (sys.argv), a list of words, a mapping, or InferArguments.

    Returns the rows written (or said): response, messages, labels, finish_reason, and what else was asked for.
    """
    return SwiftInfer(args).main()


class SwiftInfer(SwiftPipeline):
    """The pipeline of `swift infer`. `engine` answers; it is built with the pipeline. `scorer`: None for models that generate."""

    command = 'infer'

    def __init__(self, args: Any = None):
        super().__init__(args)
        self.result_path = _result_path(self.args)
        self.rows = _rows(self.args)
        self.scorer = build_scorer(self.args)
        self.engine = self.scorer.engine if self.scorer else build_engine(self.args)

    def run(self) -> list[dict[str, Any]]:
        """Rows of a file when there are any to answer, else a conversation in the terminal."""
        if self.rows is not None:
            return self._answer_rows()
        if self.scorer:
            from swift.pipelines.scoring_chat import ScoringChat

            return ScoringChat(self.scorer, plain=not self.args.use_chat_template, result_path=self.result_path).run()
        from swift.pipelines.chat import Chat

        chat = Chat(self.engine, request_config(self.args), stream=bool(self.args.stream), result_path=self.result_path, root=self.args.root_image_dir)
        return chat.run()

    def _answer_rows(self) -> list[dict[str, Any]]:
        args, rows = self.args, self.rows
        count = len(rows) if args.val_dataset_sample is None else min(len(rows), args.val_dataset_sample)
        config = request_config(args)
        started = time.perf_counter()
        written: list[dict[str, Any]] = []
        answers = self._scored(count) if self.scorer else self._streamed(count, config) if args.stream else self._batched(count, config)
        with _Writer(self.result_path, args.write_batch_size) as writer:
            for row in answers:
                writer.add(row)
                written.append(row)
        _report(written, time.perf_counter() - started, self.result_path)
        if args.metric and (scores := self._figures if self.scorer else _scores(args.metric, written)):
            print(' '.join(f'{name}={value:.4f}' for name, value in scores.items()))
        return written

    def _scored(self, count: int) -> Iterator[dict[str, Any]]:
        """Results of a scoring model; what `--metric` says about them is left in `_figures`."""
        from tqdm import tqdm

        talks: list[Any] = []
        good: list[tuple[Any, Any]] = []
        results = self.engine.infer_each(self._read(count, talks))
        for index, result in enumerate(tqdm(results, total=count, unit='row', dynamic_ncols=True, disable=None)):
            if self.args.strict and isinstance(result, SwiftError):
                raise result
            yield score_row(result, talks[index])
            if self.args.metric and not isinstance(result, SwiftError):
                good.append((talks[index], result))
            talks[index] = None
        self._figures = self.scorer.figures(*zip(*good, strict=True)) if good else {}
        if self.args.metric and not self._figures:
            logger.warning('--metric %s: no row has a label to compare with', self.args.metric)

    def _read(self, count: int, talks: list[Any]) -> Iterator[Any]:
        """The conversation of every row, noted in `talks` too, or the mistake in it."""
        for index in range(count):
            try:
                talk = self.rows[index]
            except RowError as error:
                talk = error
            talks.append(None if isinstance(talk, SwiftError) else talk)
            yield talk

    def _asked(self, count: int, config: Any, found: list[Any]) -> Iterator[Any]:
        """What the engine is asked row by row; the conversation (or the mistake in the row) is noted in `found`."""
        for index in range(count):
            try:
                conversation, labels = question_of(self.rows[index])
                found.append((conversation, labels))
                # a seed of its own for every row: equal questions may get different answers, a second run the same ones
                yield conversation, replace(config, seed=config.seed + index)
            except RowError as error:
                if self.args.strict:
                    raise
                found.append((None, None))
                yield error

    def _batched(self, count: int, config: Any) -> Iterator[dict[str, Any]]:
        from tqdm import tqdm

        found: list[Any] = []
        answers = self.engine.infer_each(self._asked(count, config, found))
        for index, answer in enumerate(tqdm(answers, total=count, unit='answer', dynamic_ncols=True, disable=None)):
            yield _row(answer, *found[index])
            found[index] = None

    def _streamed(self, count: int, config: Any) -> Iterator[dict[str, Any]]:
        from swift.pipelines.chat import show

        found: list[Any] = []
        for index, asked in enumerate(self._asked(count, replace(config, stream=True), found)):
            conversation, labels = found[index]
            if isinstance(asked, SwiftError):
                yield _row(asked, None, None)
                continue
            print(f'[{index + 1}/{count}] {_shown(conversation.messages[-1].get("content"))}')
            try:
                answer = show(self.engine.infer([asked[0]], asked[1])[0])
            except SwiftError as error:
                answer = error
            yield _row(answer, conversation, labels)


def build_scorer(args: Any) -> Any:
    """The Scorer of a model that answers with numbers; None for models that generate."""
    from swift.pipelines.scoring import SCORING, Scorer, task_of

    if args.infer_backend == 'client':
        return None
    task = task_of(args)
    if task not in SCORING:
        return None
    usual = METHODS[task].defaults  # of a model whose own files tell the task
    args = replace(args, task_type=task, **{name: value for name, value in usual.items() if name not in args.sources})
    return Scorer(_merged(args) if args.merge_lora else args)


def build_engine(args: Any) -> Any:
    """The engine that settled arguments ask for: model, adapters and template of the checkpoint."""
    if args.merge_lora:
        args = _merged(args)
    if args.infer_backend != 'transformers':
        from swift.pipelines.engines import other_engine

        return other_engine(args)
    from swift.arguments import Facts, resolve
    from swift.infer_engine.transformers import TransformersEngine
    from swift.model.load import load_model
    from swift.pipelines.templates import template_for
    from swift.tuners import load_adapter

    loaded = load_model(args)
    args = resolve(args, Facts(multimodal=loaded.info.is_multimodal))
    model, adapters = loaded.model, list(loaded.info.adapters)
    if adapters:
        model = load_adapter(model, adapters)
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    template = template_for(loaded.processor, args, loaded.info, ends)
    return TransformersEngine(
        model, template=template, max_batch_size=args.max_batch_size, max_model_len=loaded.info.max_model_len,
        prefix_cache_tokens=args.prefix_cache_tokens, weights_stay=True,
    )  # fmt: skip


def request_config(args: Any) -> Any:
    """The flags of generation as a RequestConfig; what is None is left to the model's generation config."""
    from swift.infer_engine.protocol import RequestConfig

    return RequestConfig(
        max_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        repetition_penalty=args.repetition_penalty,
        num_beams=args.num_beams,
        stop=args.stop_words,
        logprobs=args.logprobs,
        top_logprobs=args.top_logprobs,
        seed=args.seed,
    )


def question_of(conversation: Any) -> tuple[Any, str | None]:
    """(the conversation without its last answer, that answer's text). RowError when nothing is asked."""
    messages = list(conversation.messages)
    labels = None
    if messages and messages[-1].get('role') == 'assistant' and not conversation.text:
        labels = messages.pop().get('content')
        if isinstance(labels, list):  # an answer in parts
            labels = ''.join(part.get('text') or '' for part in labels if isinstance(part, dict))
    if not messages:
        raise RowError('the row asks nothing: it has no message before the answer', conversation.source)
    return replace(conversation, messages=messages), labels


def _merged(args: Any) -> Any:
    from swift.export.merge import is_merge_of, merge_lora

    if not args.adapters:
        raise SwiftError('--merge_lora true needs --adapters:', 'the checkpoint whose adapter is merged')
    output = args.adapters[0].rstrip('/') + '-merged'
    if is_merge_of(output, args.adapters):
        logger.info('the adapters are merged already: %s', output)
    else:
        output = merge_lora(args)
    return replace(args, model=output, adapters=[], merge_lora=False)


def _rows(args: Any) -> Any:
    """The conversations to answer; None: the terminal asks."""
    if not (args.val_dataset or args.dataset or args.load_data_args):
        return None
    from swift.dataset.load import load_dataset

    kept = _kept_split(args) if args.load_data_args else None
    if kept:
        logger.info('answering the rows that the training kept for validation: %s', kept)
        args = replace(args, val_dataset=[kept], split_dataset_ratio=0.0, dataset=[], columns={})
    if args.val_dataset:
        args = replace(args, dataset=[])  # rows to train on are not needed
    rows = load_dataset(replace(args, streaming=False), seed=args.data_seed, use_hf=args.use_hf, hub_token=args.hub_token, root_image_dir=args.root_image_dir).val
    if rows is None:
        raise DatasetError(
            'there are no rows to answer: the training of this checkpoint kept no validation data;', 'give --val_dataset'
        )
    return rows


def _kept_split(args: Any) -> str | None:
    """The validation rows that the training run of the checkpoint stored."""
    checkpoint = args.adapters[0] if args.adapters else args.model
    for folder in (checkpoint, os.path.dirname(os.path.abspath(checkpoint or ''))):
        path = os.path.join(folder or '', SPLIT_FILE)
        if os.path.isfile(path):
            return path
    return None


def _result_path(args: Any) -> str | None:
    """Where results go; None: nowhere (a conversation that nobody asked to keep)."""
    if args.result_path:
        if os.path.exists(args.result_path):
            raise SwiftError(f'--result_path {args.result_path} exists already;', 'choose another file, or remove it')
        return args.result_path
    if not (args.val_dataset or args.dataset or args.load_data_args):
        return None
    home = args.adapters[0] if args.adapters else args.model or args.infer_backend
    if not os.path.isdir(home) or not os.access(home, os.W_OK):
        home = os.path.join('result', os.path.basename(os.path.normpath(home)))
    folder = os.path.join(home, 'infer_result')
    name = time.strftime('%Y%m%d-%H%M%S')
    path, number = os.path.join(folder, f'{name}.jsonl'), 1
    while os.path.exists(path):
        path, number = os.path.join(folder, f'{name}-{number}.jsonl'), number + 1
    return path


def _row(answer: Any, conversation: Any, labels: str | None) -> dict[str, Any]:
    """One line of the result file; what the conversation shows is in its messages."""
    from swift.dataset.media import kept

    if isinstance(answer, SwiftError):
        row = {'response': None, 'labels': labels, 'error': str(answer)}
        return {**row, 'messages': kept(conversation).messages} if conversation else row
    choice = answer.choices[0]
    message = {key: value for key, value in vars(choice.message).items() if value is not None}
    row = {'response': choice.message.content, 'labels': labels, 'finish_reason': choice.finish_reason}
    if choice.logprobs is not None:
        row['logprobs'] = choice.logprobs
    row['messages'] = [*kept(conversation).messages, message]
    tools = {'tools': conversation.tools} if conversation.tools else {}
    extra = {key: value for key, value in conversation.columns.items() if key not in row}
    return {**row, **tools, **extra, 'usage': vars(answer.usage)}


def score_row(result: Any, talk: Any) -> dict[str, Any]:
    """One line of the result file of a scoring model."""
    from swift.dataset.convert import to_row

    asked = {} if talk is None else to_row(talk)
    label = asked.pop('label', None)
    if isinstance(result, SwiftError):
        return {'response': None, 'labels': label, 'error': str(result), **asked}
    return {**result, 'labels': label, **{key: value for key, value in asked.items() if key not in result}}


def _shown(content: Any) -> str:
    """A message as the terminal shows it: media by their names."""
    from swift.media.refs import name_of

    if not isinstance(content, list):
        return content if isinstance(content, str) else str(content or '')
    return ''.join(f'[{part["type"]} {name_of(part[part["type"]])}]' if is_medium(part) else str(part.get('text') or '') for part in content)


def _report(rows: list[dict[str, Any]], seconds: float, path: str) -> None:
    failed = [row for row in rows if 'error' in row]
    tokens = sum(row['usage']['completion_tokens'] for row in rows if 'usage' in row)
    for row in failed[:3]:
        logger.warning('not answered: %s', row['error'])
    if failed:
        logger.warning('%d of %d rows were not answered; their "error" says why', len(failed), len(rows))
    answered, seconds = len(rows) - len(failed), max(seconds, 1e-9)
    if tokens:
        logger.info('%d answers, %d tokens in %.1f s (%.0f tokens/s)', answered, tokens, seconds, tokens / seconds)
    else:
        logger.info('%d answers in %.1f s (%.0f rows/s)', answered, seconds, answered / seconds)
    logger.info('results: %s', path)


def _scores(metric: str, rows: list[dict[str, Any]]) -> dict[str, float]:
    from swift.trainers.metrics import exact_match, text_metrics

    pairs = [(row['response'] or '', row['labels']) for row in rows if row.get('labels') is not None]
    if not pairs:
        logger.warning('--metric %s: no row has an answer to compare with', metric)
        return {}
    answers, labels = zip(*pairs, strict=True)
    return {'acc': exact_match(answers, labels)['exact_match']} if metric == 'acc' else text_metrics(answers, labels)


class _Writer:
    """Appends rows to the result file: every `batch` rows, and at least every two seconds."""

    def __init__(self, path: str, batch: int):
        self._path, self._batch = path, batch
        self._held: list[dict[str, Any]] = []
        self._last = time.monotonic()

    def __enter__(self) -> _Writer:
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Take one more row."""
        self._held.append(row)
        if len(self._held) >= self._batch or time.monotonic() - self._last > 2:
            self._flush()

    def _flush(self) -> None:
        append_to_jsonl(self._path, self._held, strict=False)
        self._held, self._last = [], time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._flush()
