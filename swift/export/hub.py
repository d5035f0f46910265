"""Upload a directory to Hugging Face or ModelScope, through their own clients."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from swift.core.errors import MissingDependencyError, SwiftError
from swift.core.hub import use_hugging_face
from swift.core.log import get_logger

ONLY_TO_RESUME = ('optimizer.pt', 'scheduler.pt', 'scaler.pt', 'rng_state*', 'loader_state*', 'progress*', 'reference_model*', 'manifest.json')
"""Files of a checkpoint that only continue its training; they stay here."""


def push(directory: str, args: Any, message: str) -> str:
    """Upload a model, adapter or checkpoint to `args.hub_model_id` (created if need be) and return the address.

    `args`: hub_model_id, hub_private_repo, use_hf, hub_token. `message` names the commit. Raises SwiftError naming
    repository, hub and cause.
    """
    hugging_face = use_hugging_face(args.use_hf or None)
    upload = _to_hugging_face if hugging_face else _to_modelscope
    hub = 'Hugging Face' if hugging_face else 'ModelScope'
    try:
        with _to_publish(directory) as folder:
            address = upload(folder, args, message)
    except SwiftError:
        raise
    except Exception as error:  # the clients raise a dozen unrelated classes; every one means "not uploaded"
        reason = ' '.join(str(error).split())[:300]
        raise SwiftError(
            f'--push_to_hub: {args.hub_model_id} was not uploaded to {hub}: {type(error).__name__}: {reason};',
            f'check --hub_model_id and --hub_token; the files are in {directory}',
        ) from error
    get_logger().info('uploaded to %s: %s', hub, address)
    return address


@contextlib.contextmanager
def _to_publish(directory: str) -> Iterator[str]:
    """A folder with links to what of `directory` is for others."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(directory)), prefix='.upload-') as folder:
        for base, _, names in os.walk(directory):
            place = os.path.normpath(os.path.join(folder, os.path.relpath(base, directory)))
            os.makedirs(place, exist_ok=True)
            for name in names:
                if not any(fnmatch.fnmatch(name, pattern) for pattern in ONLY_TO_RESUME):
                    try:
                        os.link(os.path.join(base, name), os.path.join(place, name))
                    except OSError:  # another file system, or one without links
                        shutil.copyfile(os.path.join(base, name), os.path.join(place, name))
        yield folder


def _to_hugging_face(directory: str, args: Any, message: str) -> str:
    from huggingface_hub import HfApi

    api = HfApi(token=args.hub_token)
    repo = api.create_repo(args.hub_model_id, private=args.hub_private_repo, exist_ok=True)
    # the name that the hub completes (user/name) is the one to upload to
    repo_id = getattr(repo, 'repo_id', None) or args.hub_model_id
    api.upload_folder(repo_id=repo_id, folder_path=directory, commit_message=message)
    return str(repo)


def _to_modelscope(directory: str, args: Any, message: str) -> str:
    try:
        from modelscope.hub.api import HubApi
    except ImportError:
        raise MissingDependencyError('modelscope', '--push_to_hub without --use_hf') from None

    api, token = HubApi(), args.hub_token
    if not api.repo_exists(args.hub_model_id, repo_type='model', token=token):
        visibility = 'private' if args.hub_private_repo else 'public'
        api.create_repo(args.hub_model_id, repo_type='model', visibility=visibility, token=token)
    api.upload_folder(
        args.hub_model_id, directory, commit_message=message, repo_type='model', token=token
    )
    return args.hub_model_id
