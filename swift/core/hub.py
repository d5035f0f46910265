"""From an id to a local directory: Hugging Face or ModelScope, through their own clients.

A path that exists is returned as it is. Every failure is one readable line that names the id, the hub and the remedies.
The clients are imported on first use; their own settings (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN;
MODELSCOPE_ENDPOINT, MODELSCOPE_CACHE, MODELSCOPE_API_TOKEN) apply.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from swift.core.errors import DatasetError, MissingDependencyError, ModelError, SwiftError

_ID = re.compile(r'^[A-Za-z0-9_.\-]+(/[A-Za-z0-9_.\-]+)?$')

MODEL_IGNORE = ('*.zip', '*.gguf', '*.pth', '*.pt', 'consolidated*', 'onnx/*', '*.onnx', '*.msgpack', '*.ot', '*.h5')
"""Files of a model repository that transformers does not load."""


def use_hugging_face(use_hf: bool | None = None) -> bool:
    """Which hub: the argument if given, else the variable `USE_HF`, else ModelScope."""
    if use_hf is not None:
        return use_hf
    return os.environ.get('USE_HF', '0').lower() in ('1', 'true', 'yes')


def download_model(
    model_id: str | os.PathLike,
    *,
    revision: str | None = None,
    use_hf: bool | None = None,
    token: str | None = None,
    allow_patterns: Iterable[str] | None = None,
    ignore_patterns: Iterable[str] | None = None,
) -> str:
    """The local directory of a model: `model_id` itself if it is a directory, else the downloaded snapshot.

    `ignore_patterns` None leaves out what transformers never loads (`MODEL_IGNORE`). Raises ModelError.
    """
    ignore = list(MODEL_IGNORE if ignore_patterns is None else ignore_patterns)
    allow = None if allow_patterns is None else list(allow_patterns)
    return _resolve('model', str(model_id), revision, use_hf, token, allow, ignore)


def download_dataset(
    dataset_id: str | os.PathLike,
    *,
    subset: str | None = None,
    revision: str | None = None,
    use_hf: bool | None = None,
    token: str | None = None,
    allow_patterns: Iterable[str] | None = None,
    force: bool = False,
) -> str:
    """The local directory of a data set: `dataset_id` itself if it is a directory, else the downloaded snapshot.

    With `subset`, only files under that folder, files that carry its name, and the card are fetched, unless
    `allow_patterns` says exactly which; `force` fetches again what is there. Raises DatasetError.
    """
    allow = None if allow_patterns is None else list(allow_patterns)
    if allow is None and subset and subset != 'default':
        allow = [f'{subset}/*', f'*/{subset}/*', f'*{subset}*', 'README.md', 'dataset_info*.json']
    return _resolve('dataset', str(dataset_id), revision, use_hf, token, allow, None, force)


def list_dataset_files(
    dataset_id: str, *, revision: str | None = None, use_hf: bool | None = None, token: str | None = None
) -> list[str]:
    """Paths of all files of a data set repository, sorted. Raises DatasetError."""
    hf = use_hugging_face(use_hf)
    _check_id('dataset', dataset_id, hf)
    try:
        return sorted(_hf_files(dataset_id, revision, token) if hf else _ms_files(dataset_id, revision, token))
    except SwiftError:
        raise
    except Exception as error:  # the clients raise a dozen unrelated classes; every one means "not fetched"
        raise _unreachable('dataset', dataset_id, hf, error) from error


def _resolve(
    kind: str, name: str, revision: str | None, use_hf: bool | None, token: str | None, allow, ignore, force: bool = False
) -> str:
    local = Path(name).expanduser()
    if local.is_dir():
        return str(local)
    hf = use_hugging_face(use_hf)
    _check_id(kind, name, hf)
    try:
        fetch = _hf_snapshot if hf else _ms_snapshot
        return str(fetch(kind, name, revision, token, allow, ignore, force))
    except SwiftError:
        raise
    except Exception as error:  # the clients raise a dozen unrelated classes; every one means "not fetched"
        raise _unreachable(kind, name, hf, error) from error


def _hf_snapshot(kind: str, name: str, revision, token, allow, ignore, force: bool) -> str:
    from huggingface_hub import snapshot_download

    return snapshot_download(
        name, repo_type=kind, revision=revision, token=token, allow_patterns=allow, ignore_patterns=ignore, force_download=force
    )


def _hf_files(name: str, revision, token) -> list[str]:
    from huggingface_hub import HfApi

    return HfApi(token=token).list_repo_files(name, revision=revision, repo_type='dataset')


def _ms_snapshot(kind: str, name: str, revision, token, allow, ignore, force: bool) -> str:
    client = _modelscope(token)
    wanted = dict(revision=revision, allow_patterns=allow, ignore_patterns=ignore)
    if force:  # the client has no switch for it
        with contextlib.suppress(Exception):  # nothing of it is there yet
            shutil.rmtree(client.download_repo(name, kind, local_files_only=True, **wanted))
    return client.download_repo(name, kind, **wanted)


def _ms_files(name: str, revision, token) -> list[str]:
    return [file.path for file in _modelscope(token).list_repo_files(name, 'dataset', revision=revision) if file.type != 'tree']


def _modelscope(token: str | None):
    try:
        from modelscope_hub import HubApi
    except ImportError as error:
        needed = MissingDependencyError('modelscope', 'fetching from ModelScope')
        raise SwiftError(str(needed), '(or use Hugging Face: --use_hf true)') from error
    logging.getLogger('modelscope_hub').setLevel(logging.WARNING)
    return HubApi(token=token)


def _check_id(kind: str, name: str, hf: bool) -> None:
    if _ID.match(name) and (hf or '/' in name):
        return
    raise _error(kind)(
        f'{kind} {name!r} is neither a directory here nor an id of {_hub(hf)};',
        f"give an existing path or an id such as 'owner/name' (looked in {os.getcwd()})",
    )


def _unreachable(kind: str, name: str, hf: bool, error: Exception) -> SwiftError:
    other = '--use_hf false for ModelScope' if hf else '--use_hf true for Hugging Face'
    return _error(kind)(
        f"{kind} {name!r} can't be fetched from {_hub(hf)} ({_reason(error)});",
        f'check the id and the network, give a local directory, try {other}, or pass --hub_token if it is private',
    )


def _reason(error: Exception) -> str:
    name = type(error).__name__
    text = ' '.join(str(error).split())
    if any(part in name for part in ('Offline', 'LocalEntryNotFound', 'IncompleteSnapshot')):
        return 'offline and not in the local cache'
    if 'NotFound' in name or 'NotExist' in name or '[404]' in text:
        return 'not found'
    if 'Connect' in name or 'Network' in name or 'Timeout' in name:
        return 'no connection to the hub'
    return f'{name}: {text[:160]}' if text else name


def _hub(hf: bool) -> str:
    return 'Hugging Face' if hf else 'ModelScope'


def _error(kind: str) -> type[SwiftError]:
    return ModelError if kind == 'model' else DatasetError
