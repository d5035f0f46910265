"""The loading functions as ms-swift 3 and 4 spell them, on top of `load_model`."""

from __future__ import annotations

from typing import Any

from swift.arguments.model import ModelArgs
from swift.core.errors import ModelError, did_you_mean
from swift.model.info import ModelInfo
from swift.model.load import load_model, load_processor, model_info
from swift.model.registry import MODEL_MAPPING, ModelMeta
from swift.model.resolve import resolve_model_dir


def _args(model_id_or_path: str, torch_dtype: Any, device_map: Any, kwargs: dict[str, Any]) -> ModelArgs:
    fields = ModelArgs.__dataclass_fields__
    for old, new in (('attn_implementation', 'attn_impl'), ('revision', 'model_revision')):
        if old in kwargs:
            kwargs[new] = kwargs.pop(old)
    unknown = next((key for key in kwargs if key not in fields), None)
    if unknown is not None:
        raise ModelError(f'get_model_processor has no argument {unknown!r};', did_you_mean(unknown, fields))
    dtype = 'auto' if torch_dtype is None else str(torch_dtype).removeprefix('torch.')
    return ModelArgs(model=model_id_or_path, torch_dtype=dtype, device_map=device_map, **kwargs)


def get_model_processor(
    model_id_or_path: str, torch_dtype: Any = None, device_map: Any = None, *, load_model: bool = True, **kwargs: Any
) -> tuple[Any, Any]:
    """(model, processor) of an id or directory; `load_model=False` gives (None, processor).

    Keywords are the fields of ModelArgs. Adapters of the directory are not put on: see `Swift.from_pretrained`.
    """
    args = _args(model_id_or_path, torch_dtype, device_map, kwargs)
    if not load_model:
        return None, load_processor(args)
    loaded = _load(args)
    return loaded.model, loaded.processor


_load = load_model


def get_model_tokenizer(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """The name that ms-swift 2 and 3 have for `get_model_processor`."""
    return get_model_processor(*args, **kwargs)


def get_processor(model_id_or_path: str, **kwargs: Any) -> Any:
    """The processor (or tokenizer) alone."""
    return load_processor(_args(model_id_or_path, None, None, kwargs))


def get_model_info_meta(model_id_or_path: str, **kwargs: Any) -> tuple[ModelInfo, ModelMeta]:
    """(facts of this model, facts of its family)."""
    info = model_info(_args(model_id_or_path, None, None, kwargs))
    known = info.model_type in MODEL_MAPPING
    return info, MODEL_MAPPING[info.model_type] if known else ModelMeta(info.model_type, template=info.template)


def safe_snapshot_download(model_id_or_path: str, revision: str | None = None, use_hf: bool | None = None, **_: Any) -> str:
    """The local directory of a model, downloaded if it is an id."""
    return resolve_model_dir(model_id_or_path, revision=revision, use_hf=use_hf).model_dir
