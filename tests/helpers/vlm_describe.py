"""What a processor gives: names and shapes of its tensors, and how those of single rows make up those of a batch."""

from __future__ import annotations

from typing import Any

from tests.helpers.vlm_check import Habits, Subject
from tests.helpers.vlm_media import medium

ROWS = {
    'image': [['image'], ['image', 'image']],
    'video': [['video'], ['video', 'video']],
    'audio': [['audio'], ['audio', 'audio']],
}


def describe(path: str, **habits: Any) -> dict[str, Any]:
    """Facts about the processor of a checkpoint, by name."""
    subject = Subject(path, Habits(**habits))
    cls = type(subject.processor)
    found: dict[str, Any] = dict(
        processor=cls.__name__,
        own_call='__call__' in vars(cls),
        mm_token_type_ids=cls.return_mm_token_type_ids,
        kinds={kind: _kind(subject, kind) for kind in subject.habits.media or subject.media},
    )
    return found


def _kind(subject: Subject, kind: str) -> dict[str, Any]:
    forms = {}
    for nested in (True, False):
        try:
            forms['nested' if nested else 'flat'] = subject.inputs(ROWS[kind], nested=nested)
        except Exception as error:
            forms['nested' if nested else 'flat'] = f'{type(error).__name__}: {" ".join(str(error).split())[:90]}'
    both = next((form for form in forms.values() if not isinstance(form, str)), None)
    found: dict[str, Any] = {name: 'yes' if not isinstance(form, str) else form for name, form in forms.items()}
    try:
        alone = [subject.tried(ROWS[kind][:1]), _second(subject, kind)]
    except Exception as error:
        return found | dict(alone=f'{type(error).__name__}: {" ".join(str(error).split())[:90]}')
    tensors = {}
    for name, value in alone[0].items():
        other, joined = alone[1].get(name), None if both is None else both.get(name)
        tensors[name] = f'{_shape(value)} / {_shape(other)} / {_shape(joined)} {_joined(alone, both, name)}'
    return found | dict(tensors=tensors, offsets=_offsets(subject, kind), counts=_counts(subject, kind))


def _second(subject: Subject, kind: str) -> Any:
    """The second row of the batch alone, with the media that it has in the batch."""
    return subject.tried(ROWS[kind][1:], shift=7)


def _shape(value: Any) -> str:
    import torch

    if isinstance(value, torch.Tensor):
        return f'{list(value.shape)}' + ('' if value.is_floating_point() else f' {str(value.dtype)[6:]}')
    return f'{type(value).__name__}({len(value)})' if hasattr(value, '__len__') else type(value).__name__


def _joined(alone: list[Any], both: Any, name: str) -> str:
    """How the tensors of two rows make up that of the batch."""
    import torch

    if both is None or not isinstance(both.get(name), torch.Tensor):
        return ''
    first, second, joined = alone[0][name], alone[1].get(name), both[name]
    if second is None:
        return 'absent in the second'
    tokens = [inputs['input_ids'].shape[1] for inputs in (*alone, both)]
    if joined.dim() > 1 and all(
        value.dim() > 1 and value.shape[1] == size for value, size in zip((first, second, joined), tokens, strict=True)
    ):
        return '= tokens'
    if first.shape[1:] == second.shape[1:] == joined.shape[1:]:
        return '= cat' if torch.equal(torch.cat([first, second]), joined) else '≠ cat'
    if first.dim() != joined.dim() or second.dim() != joined.dim():
        return '= other rank'
    for dim in range(1, joined.dim()):
        if (
            first.shape[:dim] == second.shape[:dim] == joined.shape[:dim]
            and first.shape[dim + 1 :] == second.shape[dim + 1 :]
        ):
            if torch.equal(torch.cat([first, second], dim), joined):
                return f'= cat, dim {dim}'
    padded = [_to(value, joined.shape[1:]) for value in (first, second)]
    if any(value is None for value in padded):
        return '= other'
    made = torch.cat(padded)
    return '= cat, padded' if made.shape == joined.shape and torch.equal(made, joined) else '≠ cat, padded'


def _to(value: Any, shape: Any) -> Any:
    import torch

    if any(have > wanted for have, wanted in zip(value.shape[1:], shape, strict=True)):
        return None
    out = torch.zeros((value.shape[0], *shape), dtype=value.dtype)
    out[tuple(slice(0, size) for size in value.shape)] = value
    return out


def _offsets(subject: Subject, kind: str) -> str:
    """Whether the processor says which text it put in place of each medium."""
    try:
        inputs = subject.inputs(ROWS[kind], nested=_nested(subject, kind), return_text_replacement_offsets=True)
    except Exception as error:
        return f'{type(error).__name__}: {" ".join(str(error).split())[:90]}'
    offsets = inputs.get('text_replacement_offsets')
    if not offsets:
        return 'not returned' if offsets is None else 'empty'
    first = offsets[0][0]
    text, new = first['text'], first['replacement']
    return f'{[len(row) for row in offsets]} of {first["type"]} {text!r} → {new[:60]!r} ({len(new)})'


def _nested(subject: Subject, kind: str) -> bool:
    try:
        subject.inputs(ROWS[kind], nested=True)
    except Exception:
        return False
    return True


def _counts(subject: Subject, kind: str) -> str:
    """Whether the number of tokens that the processor computes from a size is the number it makes."""
    sizes = dict(
        image=dict(image_sizes=[(40, 52)]),
        video=dict(video_sizes=[(8, 40, 52)]),
        audio=dict(audio_lengths=[len(medium('audio', 0))]),
    )
    try:
        found = subject.processor._get_num_multimodal_tokens(**sizes[kind])
        counted = getattr(found, f'num_{kind}_tokens')
    except Exception as error:
        return f'{type(error).__name__}: {" ".join(str(error).split())[:60]}'
    ids = subject.tried(ROWS[kind][:1])['input_ids'][0].tolist()
    runs = {token: ids.count(token) for token in set(ids)}
    if counted is None:
        return 'none'
    return f'{counted[0]}, {"true" if counted[0] in runs.values() else "false"}' + (
        f' at {subject.rate}' if kind == 'audio' else ''
    )
