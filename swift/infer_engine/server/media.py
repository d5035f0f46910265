"""Which images, videos and sounds a request may show: data, URLs, and files of one folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlparse

from swift.core.media import KINDS, media_of, replaced
from swift.core.types import Conversation
from swift.infer_engine.server.errors import ApiError


def admitted(talk: Conversation, root: str | None, hosts: Sequence[str]) -> Conversation:
    """The conversation with every reference checked, names of files made absolute in `root`.

    Raises ApiError for a file outside `root` (None: for any file), or a host that is not among `hosts` (empty: all are).
    """
    if not media_of(talk.messages):
        return talk

    def check(kind: str, ref: Any) -> Any:
        if isinstance(ref, list):
            return [_reference(kind, item, root, hosts) for item in ref]
        return _reference(kind, ref, root, hosts)

    messages = replaced(talk.messages, check)
    lists = {f'{kind}s': [ref for of, ref in media_of(messages) if of == kind] for kind in KINDS}
    return replace(talk, messages=messages, **lists)


def _reference(kind: str, ref: Any, root: str | None, hosts: Sequence[str]) -> Any:
    from swift.media.refs import is_path

    if not isinstance(ref, str) or not ref:
        raise _refused(f'the {kind} is no text: send a URL or a data URI')
    if ref.startswith('data:'):
        return ref
    if ref.startswith(('http://', 'https://')):
        host = urlparse(ref).hostname or ''
        if hosts and host not in hosts:
            raise _refused(f'the {kind} is on {host or "no host"}, which is not among --allowed_media_domains')
        return ref
    if ref.startswith('file://') or is_path(ref):
        return _file(kind, ref, root)
    return {'base64': ref}  # the data alone, so that it is never read as a name


def _file(kind: str, ref: str, root: str | None) -> str:
    if root is None:
        raise _refused(f'the {kind} is a file of the server, which requests may not name; send its data, or start with --allowed_local_media_path')
    path = unquote(urlparse(ref).path) if ref.startswith('file://') else ref
    home = os.path.realpath(os.path.expanduser(root))
    path = os.path.realpath(os.path.join(home, path)) if '\0' not in path else ''
    if os.path.commonpath([home, path or os.sep]) != home:
        raise _refused(f'the {kind} is outside of --allowed_local_media_path')
    return path


def _refused(message: str) -> ApiError:
    return ApiError(400, message, param='messages', code='invalid_media')
