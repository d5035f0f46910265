"""Rows → samples: in parallel, once, kept on disk by content; or lazily; or as a stream.

`encode_batch` is any picklable callable `list[Conversation] -> list[list[Sample] | RowError]` (an objective with its
template). The key of the cache is the content of the rows (`source.fingerprint`) and the caller's `cache_key`, which
names everything else the tokens depend on.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from swift.core.dist import is_dist
from swift.core.errors import DatasetError, RowError
from swift.core.log import get_logger
from swift.core.types import Conversation, Sample
from swift.dataset.bad_rows import BadRows
from swift.dataset.store import FORMAT, Chunk, TokenStore, to_chunk, write_store

EncodeBatch = Callable[[list[Conversation]], Sequence['list[Sample] | RowError']]

CHUNK = 64
"""Rows that a worker takes at a time: small, so that a cluster of long rows doesn't leave the others idle."""


def cache_root(cache_dir: str | os.PathLike | None = None) -> Path:
    """Where tokens and converted files are kept: the argument, else `SWIFT_CACHE`, else ~/.cache/swift."""
    return Path(cache_dir or os.environ.get('SWIFT_CACHE') or '~/.cache/swift').expanduser()


def encode_rows(
    source: Any,
    encode_batch: EncodeBatch,
    *,
    cache_key: str,
    num_proc: int = 1,
    cache_dir: str | os.PathLike | None = None,
    bad_rows: BadRows | None = None,
    load_from_cache_file: bool = True,
    title: str = 'rows',
) -> TokenStore:
    """All samples of a map-style source, memory-mapped, in the order of its rows.

    The first process that asks encodes with `num_proc` workers while the others (ranks of the job, other commands)
    wait for its lock and map the result. `load_from_cache_file` False encodes anew and leaves nothing behind.
    Raises DatasetError when too many rows are bad or none is left, RowError at the first bad row when strict.
    """
    bad_rows = bad_rows or BadRows()
    digest = hashlib.blake2b(f'{FORMAT}|{source.fingerprint}|{cache_key}'.encode(), digest_size=16).hexdigest()
    folder = cache_root(cache_dir) / 'tokens'
    path = folder / (digest if load_from_cache_file else f'once-{digest}-{_run_id()}')
    if not load_from_cache_file:
        atexit.register(shutil.rmtree, path, ignore_errors=True)
    with _lock(path):
        if (path / 'meta.json').exists():
            store = TokenStore(path)
            bad_rows.merge(*(store.meta[name] for name in ('bad', 'good', 'skipped', 'long', 'first')))
            _report(store, title, None)
            return store
        begun = time.monotonic()
        counted = BadRows(strict=bad_rows.strict, limit=bad_rows.limit, shown=bad_rows.shown)
        with contextlib.closing(encoded_chunks(source, encode_batch, num_proc)) as encoded:  # ends its workers
            chunks = _with_progress(_judged(encoded, counted), len(source), title)
            store = write_store(path, _checked(chunks, counted), lambda: _counts(counted))
        bad_rows.merge(counted.bad_count, counted.good_count, counted.skipped_count, counted.long_count, counted.first, shown=True)
    _report(store, title, time.monotonic() - begun)
    return store


def _counts(counted: BadRows) -> dict[str, Any]:
    return {
        'bad': counted.bad_count,
        'good': counted.good_count,
        'skipped': counted.skipped_count,
        'long': counted.long_count,
        'first': counted.first,
    }


def _report(store: TokenStore, title: str, seconds: float | None) -> None:
    if not len(store):
        raise DatasetError('no row is left to train on;', 'see the bad rows above, or --max_length')
    how = 'read from the cache' if seconds is None else f'in {seconds:.1f} s, {store.meta["good"] / max(seconds, 1e-9):,.0f} rows/s'
    trained = f', {100 * store.labelled / max(1, store.meta["tokens"]):.1f} % of them trained' if store.labelled else ''
    get_logger().info('%s: %s samples, %s tokens (%s)%s', title, f'{len(store):,}', f'{store.meta["tokens"]:,}', how, trained)


def _judged(results: Iterable[tuple[Chunk, int, list[RowError]]], counted: BadRows) -> Iterator[tuple[Chunk, int]]:
    for chunk, good, errors in results:
        counted.good(good)
        for error in errors:
            counted.add(error)
        yield chunk, good + len(errors)


def _checked(chunks: Iterable[Chunk], counted: BadRows) -> Iterator[Chunk]:
    yield from chunks
    counted.finish()


def _with_progress(results: Iterable[tuple[Chunk, int]], total: int, title: str) -> Iterator[Chunk]:
    """Pass chunks on; on a terminal show a line, once it takes longer than two seconds."""
    begun = shown = time.monotonic()
    done, show = 0, sys.stderr.isatty()
    for chunk, rows in results:
        yield chunk
        done += rows
        now = time.monotonic()
        if show and now - begun > 2 and now - shown > 0.2:
            shown = now
            rate = done / (now - begun)
            print(f'\rencoding {title}: {done:,}/{total:,} ({rate:,.0f} rows/s)', end='', file=sys.stderr, flush=True)
    if show and shown != begun:
        print('\r\x1b[K', end='', file=sys.stderr, flush=True)


def encode_chunk(source: Any, indices: Iterable[int], encode_batch: EncodeBatch) -> tuple[list[list[Sample]], list[RowError]]:
    """Samples of the good rows among `indices` (one list a row), and the errors of the others, each with its place."""
    talks: list[Conversation] = []
    results: list[Any] = []  # of every row: its error, or None until it is encoded
    for index in indices:
        try:
            talks.append(source[index])
            results.append(None)
        except RowError as error:
            results.append(error)
    encoded = iter(zip(talks, encode_batch(talks) if talks else (), strict=True))
    good: list[list[Sample]] = []
    errors: list[RowError] = []
    for result in results:
        talk, result = next(encoded) if result is None else (None, result)
        if isinstance(result, RowError):
            errors.append(result.at(talk.source) if talk else result)
            continue
        for sample in result:
            if sample.source is None:
                sample.source = talk.source
        good.append(list(result))
    return good, errors


def _work(source: Any, start: int, stop: int, encode_batch: EncodeBatch) -> tuple[Chunk, int, list[RowError]]:
    good, errors = encode_chunk(source, range(start, stop), encode_batch)
    return to_chunk([sample for samples in good for sample in samples]), len(good), errors


def encoded_chunks(source: Any, encode_batch: EncodeBatch, num_proc: int) -> Iterator[tuple[Chunk, int, list[RowError]]]:
    """Encoded chunks in the order of the rows: (arrays, number of good rows, errors)."""
    total = len(source)
    num_proc = min(num_proc, -(-total // CHUNK))
    if num_proc <= 1:
        for start in range(0, total, CHUNK):
            yield _work(source, start, min(start + CHUNK, total), encode_batch)
        return
    with worker_pool(num_proc, (source, encode_batch)) as pool:
        jobs = ((start, min(start + CHUNK, total)) for start in range(0, total, CHUNK))
        yield from in_order(pool, _work_here, jobs, window=8 * num_proc)


def in_order(pool: ProcessPoolExecutor, function: Callable, jobs: Iterable[tuple], window: int) -> Iterator[Any]:
    """Results of `function(*job)` in the order of the jobs, with at most `window` of them under way."""
    waiting: deque = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(function, *job))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DatasetError('a worker that encodes rows was killed (out of memory?);', 'lower --dataset_num_proc') from error
    finally:
        for future in waiting:
            future.cancel()


_here: tuple[Any, ...] = ()
"""What this worker process works with; set once when it starts."""


def _start_worker(shared: tuple[Any, ...]) -> None:
    global _here
    _here = shared
    for descriptor in _held:  # a fork inherits the lock and would hold it as long as it lives
        os.close(descriptor)
    _held.clear()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'  # one worker, one core


def _end_with(parent: int) -> None:
    """End this worker when its parent is gone, even if that was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work_here(start: int, stop: int) -> tuple[Chunk, int, list[RowError]]:
    source, encode_batch = _here
    return _work(source, start, stop, encode_batch)


def worker_pool(num_proc: int, shared: tuple[Any, ...]) -> ProcessPoolExecutor:
    """Worker processes that hold `shared`: forked where that is the system's way (nothing is copied), else spawned."""
    method = os.environ.get('SWIFT_START_METHOD') or ('fork' if sys.platform.startswith('linux') else 'spawn')
    return ProcessPoolExecutor(num_proc, get_context(method), _start_worker, (shared,))


def _run_id() -> str:
    """The same for all ranks of one job on this machine, different for every run."""
    return f'{os.getppid()}-{os.environ.get("MASTER_PORT", "")}' if is_dist() else f'{os.getpid()}-{time.time_ns()}'


_held: set[int] = set()
"""Descriptors of the lock files this process holds."""


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the lock file beside `path`; the system releases it when its holder dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path.with_name(f'{path.name}.lock'), 'w')
    except OSError as error:
        raise DatasetError(f"can't use the cache {path.parent} ({error});", 'set SWIFT_CACHE to a writable folder') from error
    with file:
        try:
            import fcntl
        except ImportError:  # Windows: two processes may both encode; the rename keeps either result whole
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        _held.add(file.fileno())
        try:
            yield
        finally:
            _held.discard(file.fileno())


class LazySamples:
    """Samples encoded when they are asked for. One row gives any number of samples: use `fetch`.

    A bad row is counted and gives none. `lengths` is not known (it raises), so packing and length grouping need
    `encode_rows` instead.
    """

    def __init__(self, source: Any, encode_batch: EncodeBatch, bad_rows: BadRows | None = None):
        self.source, self.encode_batch, self.bad_rows = source, encode_batch, bad_rows or BadRows()

    @property
    def lengths(self) -> Sequence[int]:
        raise DatasetError('lengths are not known with --lazy_tokenize true;', 'set it to false for packing or length grouping')

    def __len__(self) -> int:
        return len(self.source)

    def fetch(self, index: int) -> list[Sample]:
        """The samples of row `index`: none if the row is bad, several if it was split."""
        good, errors = encode_chunk(self.source, [index], self.encode_batch)
        for error in errors:
            self.bad_rows.add(error)
        self.bad_rows.good(len(good))
        return [sample for samples in good for sample in samples]

    def __getitem__(self, index: int) -> Sample:
        samples = self.fetch(index)
        if len(samples) != 1:
            raise RowError(f'row {index} gives {len(samples)} samples')
        return samples[0]
