"""One line that shows how training goes: refreshed in a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

from transformers import TrainerCallback

from swift.parallel.device import peak_memory

PLAIN_LINES = 40
"""Most lines of progress that are written where there is no terminal."""


class ProgressCallback(TrainerCallback):
    """Step, loss, accuracy, tokens/s, memory and time left, on stderr.

    In a terminal one line is redrawn (at most ten times a second); evaluations leave a line. Elsewhere (a file, a pipe) each
    log event is a line, thinned out evenly so that a run writes at most some forty.
    """

    def __init__(self, stream: Any = None):
        self._stream = stream
        self._shown: dict[str, Any] = {}
        self._start = self._drawn = 0.0
        self._first_step = self._last_printed = 0
        self._evaluated = 0
        self._tokens: tuple[float, int] = (0.0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._start, self._first_step, self._last_printed = time.monotonic(), state.global_step, state.global_step
        self._tokens = (self._start, state.num_input_tokens_seen)
        self._shown = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Redraw the line."""
        if state.is_world_process_zero and self._terminal:
            self._draw(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Take up new figures; print evaluations, and in a plain stream every log line that is due."""
        if not state.is_world_process_zero or not logs or 'train_runtime' in logs:
            return
        if any(name.startswith('eval_') for name in logs):
            self._print(f'step {state.global_step}/{state.max_steps} | ' + ' | '.join(_figures(logs, 'eval_')))
            return
        self._shown.update(logs)
        if self._terminal:
            self._draw(state, force=True)
            return
        every = max(1, state.max_steps // PLAIN_LINES)
        last = state.global_step >= state.max_steps
        if last or state.global_step == self._first_step + 1 or state.global_step - self._last_printed >= every:
            self._last_printed = state.global_step
            self._print(self._line(state))

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show that an evaluation is under way."""
        self._evaluated += 1
        if state.is_world_process_zero and self._terminal:
            self._draw(state, note=f'evaluating, batch {self._evaluated}')

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The evaluation is over."""
        self._evaluated = 0

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say what was saved, in a terminal only (elsewhere the log says enough)."""
        if state.is_world_process_zero and self._terminal:
            self._draw(state, force=True, note=f'saved checkpoint-{state.global_step}')

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the last line standing."""
        if state.is_world_process_zero and self._terminal:
            self._draw(state, force=True)
            self._out.write('\n')
            self._out.flush()

    @property
    def _out(self) -> Any:
        return self._stream if self._stream is not None else sys.stderr

    @property
    def _terminal(self) -> bool:
        return bool(getattr(self._out, 'isatty', lambda: False)())

    def _print(self, text: str) -> None:
        self._out.write(('\r\x1b[K' if self._terminal else '') + text + '\n')
        self._out.flush()

    def _draw(self, state: Any, *, force: bool = False, note: str = '') -> None:
        now = time.monotonic()
        if not force and now - self._drawn < 0.1:
            return
        self._drawn = now
        width = shutil.get_terminal_size().columns - 1
        share = state.global_step / max(state.max_steps, 1)
        bar = '█' * round(12 * share) + '░' * (12 - round(12 * share))
        text = f'{bar} {self._line(state)}' + (f' | {note}' if note else '')
        self._out.write('\r' + text[:width] + '\x1b[K')
        self._out.flush()

    def _line(self, state: Any) -> str:
        elapsed = time.monotonic() - self._start
        done = state.global_step - self._first_step
        left = (state.max_steps - state.global_step) * elapsed / done if done else None
        parts = [f'step {state.global_step}/{state.max_steps}', *_figures(self._shown)]
        speed = self._shown.get('tokens_per_second') or self._shown.get('train_tokens_per_second')
        if speed is None and state.num_input_tokens_seen > self._tokens[1]:
            speed = (state.num_input_tokens_seen - self._tokens[1]) / max(elapsed, 1e-9)
        if speed:
            parts.append(f'{speed:,.0f} tokens/s')
        parts.append(f'{peak_memory():.2f} GiB')
        parts.append(f'{duration(elapsed)}' + (f' < {duration(left)}' if left is not None else ''))
        return ' | '.join(parts)


FIGURES = {
    'loss': '.4f', 'token_acc': '.4f', 'seq_acc': '.4f', 'accuracy': '.4f', 'f1': '.4f', 'f1_macro': '.4f', 'rewards/accuracies': '.4f',
    'rewards/margins': '.3g', 'kl': '.3g', 'recall@1': '.4f', 'mrr': '.4f', 'ndcg@10': '.4f', 'spearman': '.4f', 'mse': '.3g',
    'grad_norm': '.3g', 'learning_rate': '.3g', 'rouge-l': '.2f', 'bleu-4': '.2f', 'exact_match': '.2f',
}  # fmt: skip
"""The figures worth a place on the line, in this order, and how they are written. Losses of tasks and channels follow the loss."""


def _figures(logs: dict[str, Any], prefix: str = '') -> list[str]:
    shown = []
    for name, form in FIGURES.items():
        if prefix + name in logs:
            shown.append(f'{prefix}{name} {float(logs[prefix + name]):{form}}')
        if name == 'loss':
            parts = sorted(key for key in logs if key.startswith(f'{prefix}loss_'))
            shown += [f'{key} {float(logs[key]):{form}}' for key in parts]
    return shown


def duration(seconds: float) -> str:
    """`12s`, `3m 05s`, `2h 10m`, `3d 4h`."""
    whole = int(seconds)
    if whole < 60:
        return f'{whole}s'
    if whole < 3600:
        return f'{whole // 60}m {whole % 60:02d}s'
    if whole < 86400:
        return f'{whole // 3600}h {whole % 3600 // 60:02d}m'
    return f'{whole // 86400}d {whole % 86400 // 3600}h'
