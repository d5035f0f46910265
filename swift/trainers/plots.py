"""Curves of a run as PNG files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

SMOOTHING = 0.9
"""Weight of the past in the smoothed curve."""

SKIP = {'epoch', 'step', 'total_flos', 'train_runtime', 'train_samples_per_second', 'train_steps_per_second', 'train_loss',
        'eval_runtime', 'eval_samples_per_second', 'eval_steps_per_second'}


def smooth(values: Sequence[float], weight: float = SMOOTHING) -> list[float]:
    """Exponential moving average without the bias of a start at zero: s_t = Σ w^(t-i) x_i / Σ w^(t-i)."""
    result, total, norm = [], 0.0, 0.0
    for value in values:
        total = total * weight + value
        norm = norm * weight + 1.0
        result.append(total / norm)
    return result


def curves(log_history: Sequence[dict[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """`train/loss`, `train/learning_rate`, `eval/loss`, … → (steps, values), from a trainer state's log history."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for record in log_history:
        if 'train_runtime' in record:
            continue
        for name, value in record.items():
            if name in SKIP or not isinstance(value, (int, float)) or isinstance(value, bool):
                continue
            key = f'eval/{name[5:]}' if name.startswith('eval_') else f'train/{name}'
            steps, values = found.setdefault(key, ([], []))
            steps.append(int(record.get('step', 0)))
            values.append(float(value))
    return found


def draw(log_history: Sequence[dict[str, Any]], folder: str) -> list[str]:
    """Write one PNG a curve into `folder` (train_loss.png, train_learning_rate.png, eval_loss.png, …); returns their paths.

    Loss curves are drawn raw and smoothed (0.9). matplotlib is imported here, without a display.
    """
    return _draw_curves(curves(log_history), folder, {'train/loss'}, SMOOTHING, (8, 5), 100)


def plot_images(
    images_dir: str,
    tb_dir: str,
    smooth_key: Sequence[str] = ('train/loss',),
    smooth_val: float = SMOOTHING,
    figsize: tuple[int, int] = (8, 5),
    dpi: int = 100,
) -> list[str]:
    """One PNG a scalar of the TensorBoard events below `tb_dir`; curves named in `smooth_key` are smoothed too. Returns the paths."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(tb_dir, size_guidance={'scalars': 0}).Reload()
    found = {}
    for name in events.Tags()['scalars']:
        points = events.Scalars(name)
        found[name] = ([point.step for point in points], [point.value for point in points])
    return _draw_curves(found, images_dir, set(smooth_key), smooth_val, figsize, dpi)


def _draw_curves(
    found: dict[str, tuple[list[int], list[float]]],
    folder: str,
    smoothed: set[str],
    weight: float,
    figsize: tuple[int, int],
    dpi: int,
) -> list[str]:
    if not found:
        return []
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    os.makedirs(folder, exist_ok=True)
    paths = []
    for name, (steps, values) in found.items():
        figure = Figure(figsize=figsize, dpi=dpi)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        if name in smoothed and len(values) > 1:
            axes.plot(steps, values, color='#9ecae1', linewidth=1, label='as logged')
            axes.plot(steps, smooth(values, weight), color='#08519c', linewidth=1.8, label=f'smoothed {weight}')
            axes.legend()
        else:
            axes.plot(steps, values, color='#08519c', linewidth=1.5, marker='o' if len(values) < 30 else None, markersize=3)
        axes.set_xlabel('step')
        axes.set_title(name)
        axes.grid(alpha=0.3)
        path = os.path.join(folder, name.replace('/', '_') + '.png')
        figure.savefig(path, bbox_inches='tight')
        paths.append(path)
    return paths
