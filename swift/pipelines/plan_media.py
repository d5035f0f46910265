"""What a plan says about images, videos and sounds: how many there are, how many tokens they become, what can't be read, and by which budgets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swift.arguments.media import MEDIA
from swift.core.errors import RowError
from swift.core.media import KINDS
from swift.core.types import Media, Sample
from swift.pipelines.estimate import Tower, part_of, value_of
from swift.pipelines.preview import segments
from swift.template.runs import media_kinds, token_runs

LOOKED_AT = 2_000
"""Samples that are counted one by one; of larger data so many, evenly chosen."""
READ = 16
"""Samples whose media are read in full."""
_TOWERS = (('vision_config', ('pixel_values', 'pixel_values_videos')), ('audio_config', ('input_features',)))
"""Part of a configuration → the inputs that its tower reads."""


@dataclass
class MediaFacts:
    """What the samples of a run show."""

    counts: dict[str, int]
    """Kind → media in the samples looked at, times what stands for those not looked at."""
    shown: int
    """Samples that show something (likewise)."""
    tokens: np.ndarray
    """[samples looked at] tokens that stand for media."""
    lengths: np.ndarray
    """[samples looked at] all tokens."""
    exact: bool
    """Every sample was looked at."""
    read: int = 0
    """Samples whose media were read in full."""
    broken: tuple[str, ...] = ()
    """What could not be read, by row."""
    towers: tuple[tuple[str, float, int], ...] = ()
    """(part of the configuration, positions of its tower for a token of a medium, most positions of one sample) of those that were read."""

    @property
    def share(self) -> float:
        """Of all tokens those that stand for media."""
        return float(self.tokens.sum() / max(self.lengths.sum(), 1))

    def share_of(self, low: int, high: int) -> float | None:
        """The same for samples of `low` to `high` tokens; None: there is none."""
        inside = (self.lengths >= low) & (self.lengths < high)
        return float(self.tokens[inside].sum() / self.lengths[inside].sum()) if inside.any() else None


def media_facts(samples: Any, template: Any, config: Any) -> MediaFacts | None:
    """What samples show; None where the model reads text only, or none of them shows anything."""
    if not media_kinds(template):
        return None
    total = len(samples)
    chosen = np.unique(np.linspace(0, total - 1, min(total, LOOKED_AT)).round().astype(int))
    counts: Counter = Counter()
    shown, tokens, lengths, first = 0, [], [], []
    for index in chosen:
        sample = samples[int(index)]
        media = [stored for stored in sample.media or [] if stored]
        counts.update(kind for stored in media for kind, _ in stored['media'])
        shown += bool(media)
        lengths.append(len(sample))
        tokens.append(_media_tokens(sample, template) if media else 0)
        if media:
            first.append(sample)
    if not shown:
        return None
    scale = total / len(chosen)
    facts = MediaFacts(
        {kind: round(number * scale) for kind, number in counts.items()}, round(shown * scale), np.array(tokens), np.array(lengths), scale == 1
    )
    return _read(facts, [first[i] for i in np.unique(np.linspace(0, len(first) - 1, READ).round().astype(int))], template, config)


def _media_tokens(sample: Sample, template: Any) -> int:
    """Tokens of a sample that stand for media."""
    return sum(end - start for part in segments(sample) if part.media for start, end in token_runs(template, part.input_ids, part.media[0]))


def _read(facts: MediaFacts, samples: Sequence[Sample], template: Any, config: Any) -> MediaFacts:
    """Read the media of some samples: what is broken behind a good header shows only then."""
    broken: list[str] = []
    positions: dict[str, list[tuple[int, int]]] = {}
    for sample in samples:
        try:
            read = template.read_media(sample)
        except RowError as error:
            broken.append(str(error.at(sample.source)))
            continue
        for name, size in _positions([media for media in read.media or [] if media], config):
            positions.setdefault(name, []).append((size, _media_tokens(sample, template)))
    facts.read, facts.broken = len(samples), tuple(broken)
    facts.towers = tuple(
        (name, sum(size for size, _ in sizes) / max(1, sum(count for _, count in sizes)), max(size for size, _ in sizes))
        for name, sizes in positions.items()
    )
    return facts


def _positions(media: Sequence[Media], config: Any) -> Iterator[tuple[str, int]]:
    """(part of the configuration, positions that its tower computes) for the media of a sample."""
    for part, names in _TOWERS:
        own = part_of(config, part)
        tensors = [value for item in media for group in (item.listed, item.nested) for name, value in group.items() if name in names]
        if own is not None and tensors:
            yield part, sum(_patches(tensor, own) if part == 'vision_config' else tensor.shape[0] * tensor.shape[-1] // 2 for tensor in tensors)


def _patches(tensor: Any, config: Any) -> int:
    """Patches of a tensor of patches [N, values], or of pictures [..., 3, H, W]."""
    patch = value_of(config, 'patch_size')
    patch = max(patch) if isinstance(patch, (list, tuple)) else patch
    if tensor.dim() < 4 or not patch:
        return len(tensor)
    pictures = tensor.numel() // (tensor.shape[-3] * tensor.shape[-1] * tensor.shape[-2])
    return pictures * (tensor.shape[-2] // patch) * (tensor.shape[-1] // patch)


def towers_of(facts: MediaFacts | None, config: Any, tokens: int, args: Any, learns: bool) -> list[Tower]:
    """The load of the towers in a micro-batch of `tokens` tokens, as large a share of them media as in the sample with most."""
    if facts is None:
        return []
    share = float((facts.tokens / np.maximum(facts.lengths, 1)).max())
    checkpointing = args.gradient_checkpointing if args.vit_gradient_checkpointing is None else args.vit_gradient_checkpointing
    return [
        Tower(part_of(config, part), max(round(tokens * share * ratio), most), learns, bool(checkpointing)) for part, ratio, most in facts.towers
    ]


def parts_that_learn(model: Any) -> dict[str, tuple[int, int]] | None:
    """Part → (weights that get gradients, all weights); None for a model that has no towers."""
    from swift.tuners.parts import parts_of

    parts = parts_of(model)
    found: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        counts = found.setdefault(parts.of(name), [0, 0])
        counts[0] += parameter.numel() * parameter.requires_grad
        counts[1] += parameter.numel()
    return {part: (a, b) for part, (a, b) in found.items()} if found.keys() - {'llm'} else None


def budgets_of(args: Any, sources: dict[str, str]) -> dict[str, tuple[Any, str]]:
    """Budgets in force: flag → (value, where it comes from)."""
    return {name: (getattr(args, name), sources.get(name, 'default')) for name in MEDIA if getattr(args, name, None) is not None}


def media_lines(facts: MediaFacts | None, budgets: dict[str, tuple[Any, str]], kinds: Sequence[str], counted: bool = True) -> Iterator[str]:
    """What a plan prints about media; `counted` False: rows are read as they come."""
    if not kinds:
        return
    if not counted:
        yield 'media      not counted in advance'
    elif facts is None:
        yield f'media      none in these rows; the model takes {", ".join(f"{kind}s" for kind in kinds)}'
    else:
        about = '' if facts.exact else 'about '
        counts = ', '.join(f'{number:,} {kind}{"s" if number != 1 else ""}' for kind, number in sorted(facts.counts.items(), key=lambda item: KINDS.index(item[0])))
        yield f'media      {about}{counts} in {facts.shown:,} samples; {facts.share:.1%} of all tokens stand for them'
        yield f'           {facts.read} samples read in full, {len(facts.broken)} of them can not be'
        yield from (f'           BROKEN {reason}' for reason in facts.broken[:5])
    own = ', '.join(f'{name} {value} ({source})' for name, (value, source) in budgets.items())
    yield f'budgets    {own or "those of the model itself"}'


def parts_lines(parts: dict[str, tuple[int, int]] | None) -> Iterator[str]:
    """Which parts of a multimodal model learn."""
    if parts is None:
        return
    names = {'llm': 'language model', 'vit': 'towers', 'aligner': 'aligner', 'fixed': 'out of reach'}
    words = [f'{name} {_figures(*parts[part])}' for part, name in names.items() if part in parts]
    yield f'           trainable by part: {"; ".join(words)}'


def _figures(trainable: int, total: int) -> str:
    return f'{trainable:,} of {total:,}' if trainable else f'frozen ({total:,})'
