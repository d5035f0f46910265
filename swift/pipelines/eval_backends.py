"""Other programs that evaluate (lm-evaluation-harness, EvalScope, …): each in an environment of its own, asking a server.

Their packages want other versions than training does, so nothing of them is imported here: a virtual environment is made once, the
program runs in it as a process, and what it wrote is read back. The server is --eval_url, else one in this process for as long as it takes.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swift.core.errors import SwiftError
from swift.core.log import get_logger
from swift.infer_engine.remote import Remote
from swift.pipelines.eval_judge import Z
from swift.pipelines.eval_report import as_table, write_report

logger = get_logger()

@dataclass(frozen=True)
class Program:
    """How one of them is installed, called and read."""

    packages: tuple[str, ...]
    program: str
    """What is run, in the environment's bin."""
    words: Callable[[Any, str, str, str], list[str]]
    """(args, url, model name, output folder) → the words behind the program's name."""
    read: Callable[[str], dict[str, Any]]
    """The output folder → name of data set → its part of our report."""


def run_backend(args: Any) -> dict[str, Any]:
    """Evaluate with the program of --eval_backend. Returns the report, as Native does. Raises SwiftError."""
    program = PROGRAMS.get(args.eval_backend)
    if program is None:
        raise SwiftError(
            f'--eval_backend {args.eval_backend} is reached through EvalScope here;',
            f'give --eval_backend EvalScope --extra_eval_args \'{{"eval_backend": "{args.eval_backend}"}}\'',
        )
    python = environment(args.eval_backend, program)
    folder = os.path.join(args.eval_output_dir, f'{args.eval_backend}-{time.strftime("%Y%m%d-%H%M%S")}')
    os.makedirs(folder)
    started = time.perf_counter()
    with server(args) as (url, name):
        words = [os.path.join(os.path.dirname(python), program.program), *program.words(args, url, name, folder)]
        _run(words, os.path.join(folder, 'log.txt'), key=args.api_key)
    seconds = time.perf_counter() - started
    parts = program.read(folder)
    if not parts:
        raise SwiftError(f'{args.eval_backend} wrote no result;', f'see {folder}/log.txt')
    rows = sum(part['asked'] for part in parts.values())
    timings = {'rows': rows, 'tokens': 0, 'seconds': round(seconds, 3), 'rows_per_second': round(rows / seconds, 2), 'tokens_per_second': 0.0}
    settings = {'backend': args.eval_backend, 'data': args.eval_dataset, 'limit': args.eval_limit, **args.extra_eval_args}
    report = {'model': name, 'datasets': parts, 'settings': settings, 'timings': timings}
    write_report(folder, report)
    print(as_table(report))
    logger.info('report: %s', os.path.join(folder, 'report.md'))
    return {**report, 'report_dir': folder}


# ---- environments


def environment(backend: str, program: Program) -> str:
    """The Python of the program's own environment, made on first use. SWIFT_EVAL_ENV names one that is there already."""
    from swift.dataset.encode import cache_root

    given = os.environ.get('SWIFT_EVAL_ENV')
    root = given or str(cache_root() / 'envs' / backend.lower())
    python, done = os.path.join(root, 'bin', 'python'), os.path.join(root, '.complete')
    if given:
        if not os.path.exists(os.path.join(root, 'bin', program.program)):
            raise SwiftError(f'SWIFT_EVAL_ENV {root} has no bin/{program.program};', f'install {" ".join(program.packages)} there')
        return python
    if os.path.exists(done):
        return python
    logger.info('making an environment for %s: %s (once; it takes minutes)', backend, root)
    for words in ([sys.executable, '-m', 'venv', '--clear', root], [python, '-m', 'pip', 'install', '--quiet', *program.packages]):
        made = subprocess.run(words, capture_output=True, text=True)
        if made.returncode:
            last = (made.stderr.strip().splitlines() or ['no message'])[-1]
            raise SwiftError(f'{backend} could not be installed: {last};', f'install {" ".join(program.packages)} yourself and set SWIFT_EVAL_ENV')
    with open(done, 'w', encoding='utf-8') as file:
        file.write(' '.join(program.packages) + '\n')
    return python


def _run(words: Sequence[str], log: str, key: str | None) -> None:
    """Run to the end, what it says in a file. Raises SwiftError with its last line."""
    env = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV')}
    env['OPENAI_API_KEY'] = key or env.get('OPENAI_API_KEY') or 'none'
    logger.info('running %s', ' '.join(words))
    with open(log, 'w', encoding='utf-8') as file:
        code = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env=env).returncode
    if code:
        with open(log, encoding='utf-8', errors='replace') as file:
            last = ([line.strip() for line in file if line.strip()] or ['no message'])[-1]
        raise SwiftError(f'{os.path.basename(words[0])} failed: {last[:300]};', f'see {log}')


# ---- the server


@contextlib.contextmanager
def server(args: Any) -> Iterator[tuple[str, str]]:
    """(address that ends in /v1, name of the model there): --eval_url, or the model served by this process until the block ends."""
    if args.eval_url:
        remote = Remote(args.eval_url, args.api_key or os.environ.get('OPENAI_API_KEY'))
        yield remote.base_url, args.model or remote.models()[0]
        return
    from swift.pipelines.deploy import flags_of_deploy, run_deploy

    flags = flags_of_deploy(args)
    with run_deploy(flags.pop('model'), flags.pop('infer_backend', args.infer_backend), flags.pop('device_map', None), **flags) as served:
        yield served.url, served.served.models[0].name


# ---- lm-evaluation-harness


def _pairs(values: Mapping[str, Any]) -> str:
    return ','.join(f'{key}={value}' for key, value in values.items())


def harness_words(args: Any, url: str, name: str, folder: str) -> list[str]:
    """lm_eval's command line. `extra_eval_args`: its own flags; `model` is local-chat-completions unless said otherwise."""
    extra = dict(args.extra_eval_args)
    kind = extra.pop('model', 'local-chat-completions')
    path = 'completions' if kind == 'local-completions' else 'chat/completions'
    model_args = {'model': name, 'base_url': f'{url}/{path}', 'num_concurrent': args.eval_num_proc, 'max_retries': 3, 'tokenized_requests': False}
    own = extra.pop('model_args', {})
    words = ['--model', kind, '--model_args', _pairs({**model_args, **(own if isinstance(own, dict) else {})})]
    words += ['--tasks', ','.join(args.eval_dataset), '--output_path', folder, '--log_samples']
    words += ['--apply_chat_template'] if kind == 'local-chat-completions' else []
    words += ['--limit', str(args.eval_limit)] if args.eval_limit else []
    generation = {'temperature': args.temperature or 0, **({'max_gen_toks': args.max_new_tokens} if args.max_new_tokens else {}), **args.eval_generation_config}
    words += ['--gen_kwargs', _pairs(generation)]
    for key, value in extra.items():
        words += [f'--{key}'] if value is True else [] if value in (False, None) else [f'--{key}', _pairs(value) if isinstance(value, dict) else str(value)]
    return words


def harness_report(folder: str) -> dict[str, Any]:
    """What lm_eval wrote, as parts of a report."""
    parts: dict[str, Any] = {}
    for path in sorted(glob.glob(os.path.join(folder, '**', 'results_*.json'), recursive=True)):
        with open(path, encoding='utf-8') as file:
            found = json.load(file)
        for task, figures in found['results'].items():
            count = (found.get('n-samples', {}).get(task) or {}).get('effective', 0)
            metrics = {}
            for key, value in figures.items():
                name, _, step = key.partition(',')
                if isinstance(value, (int, float)) and step and not name.endswith('_stderr'):
                    error = figures.get(f'{name}_stderr,{step}')
                    bounds = {'low': value - Z * error, 'high': value + Z * error} if isinstance(error, (int, float)) else {}
                    metrics[name if step == 'none' else f'{name} ({step})'] = {'mean': float(value), 'count': count, **bounds}
            parts[task] = {'kind': 'lm-eval', 'asked': count, 'failed': 0, 'cut': 0, 'metrics': metrics, 'items': _harness_items(folder, task)}
    return parts


def _harness_items(folder: str, task: str) -> list[dict[str, Any]]:
    items = []
    for path in sorted(glob.glob(os.path.join(folder, '**', f'samples_{task}_*.jsonl'), recursive=True)):
        with open(path, encoding='utf-8') as file:
            for line in file:
                row = json.loads(line)
                said = row.get('filtered_resps') or row.get('resps')
                scores = {name: row[name] for name in row.get('metrics', []) if isinstance(row.get(name), (int, float))}
                items.append({'index': row.get('doc_id'), 'question': json.dumps(row.get('doc'), ensure_ascii=False, default=str), 'reference': row.get('target'),
                              'response': said[0] if isinstance(said, list) and len(said) == 1 else said, 'scores': scores})  # fmt: skip
    return items


# ---- EvalScope


def scope_words(args: Any, url: str, name: str, folder: str) -> list[str]:
    """evalscope's command line. `extra_eval_args`: its own flags."""
    words = ['eval', '--model', name, '--api-url', url, '--api-key', args.api_key or 'none', '--eval-type', 'openai_api', '--work-dir', folder]
    words += ['--datasets', *args.eval_dataset, '--eval-batch-size', str(args.eval_num_proc)]
    words += ['--limit', str(args.eval_limit)] if args.eval_limit else []
    generation = {'temperature': args.temperature or 0, **({'max_tokens': args.max_new_tokens} if args.max_new_tokens else {}), **args.eval_generation_config}
    words += ['--generation-config', json.dumps(generation)]
    for key, value in args.extra_eval_args.items():
        flag = f'--{key.replace("_", "-")}'
        words += [flag] if value is True else [] if value in (False, None) else [flag, json.dumps(value) if isinstance(value, (dict, list)) else str(value)]
    return words


def scope_report(folder: str) -> dict[str, Any]:
    """What EvalScope wrote (reports/MODEL/DATASET.json), as parts of a report."""
    parts = {}
    for path in sorted(glob.glob(os.path.join(folder, '**', 'reports', '**', '*.json'), recursive=True)):
        with open(path, encoding='utf-8') as file:
            found = json.load(file)
        metrics = {_scope_name(metric): {'mean': float(metric['score']), 'count': int(metric.get('num') or 0)} for metric in found.get('metrics', [])}
        if metrics:
            count = max(figure['count'] for figure in metrics.values())
            name = found.get('dataset_name') or os.path.basename(path)[:-5]
            parts[name] = {'kind': 'EvalScope', 'asked': count, 'failed': 0, 'cut': 0, 'metrics': metrics, 'items': _scope_items(folder, name)}
    return parts


def _scope_name(metric: Mapping[str, Any]) -> str:
    """`accuracy`, or with what it is taken of: `pass (at_k 4)`. Reports of before version 2 have the name itself."""
    if 'identity' not in metric:
        return metric['name']
    identity = metric['identity']
    more = [f'{key} {value}' for key, value in (identity.get('dimensions') or {}).items()]
    more += [identity['aggregation']] if identity.get('aggregation') not in (None, 'mean') else []
    return f'{identity["name"]} ({", ".join(more)})' if more else identity['name']


def _scope_items(folder: str, name: str) -> list[dict[str, Any]]:
    items = []
    for path in sorted(glob.glob(os.path.join(folder, '**', 'reviews', '**', f'{name}_*.jsonl'), recursive=True)):
        with open(path, encoding='utf-8') as file:
            for row in map(json.loads, file):
                said = {message.get('role'): message.get('content') for message in row.get('messages') or []}
                values = ((row.get('sample_score') or {}).get('score') or {}).get('value') or {}
                scores = {key: value for key, value in values.items() if isinstance(value, (int, float))}
                items.append({'index': row.get('index'), 'question': said.get('user'), 'reference': row.get('target'), 'response': said.get('assistant'), 'scores': scores})
    return sorted(items, key=lambda item: item['index'] or 0)


PROGRAMS: dict[str, Program] = {
    'lm-eval': Program(('lm-eval[api]',), 'lm_eval', harness_words, harness_report),
    'EvalScope': Program(('evalscope',), 'evalscope', scope_words, scope_report),
}
"""Value of --eval_backend → the program. OpenCompass and VLMEvalKit are backends of EvalScope."""
