"""Upload a directory to Hugging Face or ModelScope, through their own clients."""

from __future__ import annotations

from typing import Any

from swift.core.errors import MissingDependencyError, SwiftError
from swift.core.hub import use_hugging_face
from swift.core.log import get_logger


def push(directory: str, args: Any) -> str:
    """Upload every file of `directory` to `args.hub_model_id` (created if need be) and return the address.

    `args`: ExportArgs and RunArgs (use_hf, hub_token). Raises SwiftError naming repository, hub and cause.
    """
    hugging_face = use_hugging_face(args.use_hf or None)
    upload = _to_hugging_face if hugging_face else _to_modelscope
    hub = 'Hugging Face' if hugging_face else 'ModelScope'
    try:
        address = upload(directory, args)
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


def _to_hugging_face(directory: str, args: Any) -> str:
    from huggingface_hub import HfApi

    api = HfApi(token=args.hub_token)
    repo = api.create_repo(args.hub_model_id, private=args.hub_private_repo, exist_ok=True)
    # the name that the hub completes (user/name) is the one to upload to
    repo_id = getattr(repo, 'repo_id', None) or args.hub_model_id
    api.upload_folder(repo_id=repo_id, folder_path=directory, commit_message=args.commit_message)
    return str(repo)


def _to_modelscope(directory: str, args: Any) -> str:
    try:
        from modelscope.hub.api import HubApi
    except ImportError:
        raise MissingDependencyError('modelscope', '--push_to_hub without --use_hf', 'modelscope') from None

    api, token = HubApi(), args.hub_token
    if not api.repo_exists(args.hub_model_id, repo_type='model', token=token):
        visibility = 'private' if args.hub_private_repo else 'public'
        api.create_repo(args.hub_model_id, repo_type='model', visibility=visibility, token=token)
    api.upload_folder(
        args.hub_model_id, directory, commit_message=args.commit_message, repo_type='model', token=token
    )
    return args.hub_model_id
