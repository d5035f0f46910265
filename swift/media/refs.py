"""What a reference to a medium may be, and the file or the bytes behind it.

A reference is a path, a `file://` or http(s) URL, a data URI, a base64 text, bytes, a dict with one of these under `path`, `url`,
`bytes`, `base64`; a PIL image, an array; a list of such (the frames of a video). What comes over the network, or has no file of
its own, is kept in the cache under a name made of its content or address: `SWIFT_CACHE`, else ~/.cache/swift.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import http.client
import io
import os
import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlparse

from swift.core.errors import RowError

TIMEOUT = 30.0
"""Seconds that a server may take to answer."""
LIMIT = 2 << 30
"""Bytes of a file that is fetched."""
_BASE64 = re.compile(r'[A-Za-z0-9+/_\-\s]{24,}={0,2}\s*')
_LONGEST_NAME = 4096
"""Characters of a file's name with its folders; a base64 text that is longer needs no other sign."""
_URL_SAFE = str.maketrans('-_', '+/')
_KEYS = ('bytes', 'base64', 'data', 'path', 'url')
_AGENT = {'User-Agent': 'Mozilla/5.0 (compatible; swift)'}


def cache_folder() -> Path:
    """Where fetched and unnamed media are kept."""
    return Path(os.environ.get('SWIFT_CACHE') or '~/.cache/swift').expanduser() / 'media'


def located(ref: Any, folder: str | None, root: str | None) -> Any:
    """A reference with a relative path made absolute: in `root` if that is given, else in `folder`, the one of the data file, or in
    the working directory, where the file is. Everything else as it is."""
    if isinstance(ref, (list, tuple)):
        return [located(item, folder, root) for item in ref]
    if isinstance(ref, dict) and isinstance(ref.get('path'), str) and ref.get('bytes') is None:
        return {**ref, 'path': located(ref['path'], folder, root)}
    if isinstance(ref, os.PathLike):
        ref = os.fspath(ref)
    if not is_path(ref) or os.path.isabs(path := os.path.expanduser(ref)):
        return os.path.expanduser(ref) if is_path(ref) else ref
    places = [os.path.abspath(os.path.join(place, path)) for place in ([root] if root else [folder or '.', '.'])]
    return next((place for place in places if os.path.exists(place)), places[0])


def is_path(ref: Any) -> bool:
    """Whether a reference is the name of a file."""
    return isinstance(ref, str) and not ref.startswith(('http://', 'https://', 'data:', 'file://')) and not _is_base64(ref)


def _is_base64(text: str) -> bool:
    """Whether a text is base64, not the name of a file: it says so by what it decodes to, or by its length."""
    if not _BASE64.fullmatch(text):
        return False
    return len(text) > _LONGEST_NAME or suffix_of(_bytes(text[:200])) is not None


def name_of(ref: Any) -> str:
    """A reference as messages name it."""
    if isinstance(ref, list):
        return f'{len(ref)} frames, the first of them {name_of(ref[0])}' if ref else 'a video without frames'
    if isinstance(ref, dict):
        return name_of(next((ref[key] for key in ('path', 'url') if ref.get(key)), next((ref[k] for k in _KEYS if ref.get(k) is not None), '{}')))
    if isinstance(ref, str):
        return ref if len(ref) <= 200 and not ref.startswith('data:') else f'{ref[:40]}…'
    if isinstance(ref, (bytes, bytearray)):
        return f'{len(ref)} bytes in the row'
    return type(ref).__name__


def source(ref: Any) -> str | bytes:
    """The path of the file behind a reference, or its bytes. Raises RowError when there is none."""
    if isinstance(ref, dict):
        key = next((key for key in _KEYS if ref.get(key) is not None), None)
        if key is None:
            raise RowError(f'a medium of this row has no path, url or bytes, only {sorted(ref)}')
        return _decoded(ref[key], ref) if key in ('base64', 'data') else source(ref[key])
    if isinstance(ref, (bytes, bytearray, memoryview)):
        return bytes(ref)
    if isinstance(ref, os.PathLike):
        ref = os.fspath(ref)
    if not isinstance(ref, str):
        raise RowError(f'a medium of this row is a {type(ref).__name__}, not a path, URL, bytes or picture')
    if ref.startswith('data:'):
        return _decoded(ref, ref)
    if ref.startswith(('http://', 'https://')):
        return fetched(ref)
    if ref.startswith('file://'):
        ref = unquote(urlparse(ref).path)
    if not os.path.exists(ref) and _is_base64(ref):
        return _decoded(ref, ref)
    if not os.path.isfile(ref):
        raise RowError(f'{name_of(ref)} {"is a folder" if os.path.isdir(ref) else "does not exist"}')
    return ref


def _decoded(text: Any, ref: Any) -> bytes:
    head = ''
    if isinstance(text, str) and text.startswith('data:'):
        head, _, text = text.partition(',')
    try:
        return unquote_to_bytes(text) if head and ';base64' not in head else _bytes(text)
    except (binascii.Error, ValueError, TypeError, AttributeError) as error:
        raise RowError(f'{name_of(ref)} is no base64 text ({error})') from error


def _bytes(text: str) -> bytes:
    """The bytes of a base64 text, of either alphabet, with or without line ends and padding."""
    text = re.sub(r'\s|=', '', text).translate(_URL_SAFE)
    return base64.b64decode(text[: len(text) - (len(text) % 4 == 1)] + '=' * (-len(text) % 4 % 3), validate=True)


def fetched(url: str) -> str:
    """The file of a URL in the cache, downloaded if it is not there. Raises RowError naming the URL."""
    suffix = os.path.splitext(urlparse(url).path)[1][:8]
    path = _kept_at(hashlib.blake2b(url.encode(), digest_size=16).hexdigest(), suffix)
    if path.exists():
        return str(path)
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=_AGENT), timeout=TIMEOUT)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise RowError(f'{name_of(url)} can not be fetched: {_reason(error)}') from error
    with answer:
        return str(_keep(path, _pieces(answer, url)))


def _pieces(answer: Any, url: str) -> Iterator[bytes]:
    """The body of an answer, bit by bit. Raises RowError when it breaks off or is too large."""
    length = 0
    try:
        while piece := answer.read(1 << 20):
            length += len(piece)
            if length > LIMIT:
                raise RowError(f'{name_of(url)} is larger than {LIMIT >> 30} GiB')
            yield piece
        if (left := answer.length) and left > 0:
            raise RowError(f'{name_of(url)} broke off after {length} of {length + left} bytes')
    except (http.client.HTTPException, OSError) as error:
        raise RowError(f'{name_of(url)} broke off after {length} bytes: {_reason(error)}') from error


def _reason(error: BaseException) -> str:
    return str(getattr(error, 'reason', None) or error).split('\n', 1)[0] or type(error).__name__


def storable(ref: Any) -> Any:
    """The same medium as a JSON value: an absolute path, a URL, or a list of such. What has no file of its own gets one in the cache."""
    if isinstance(ref, (list, tuple)):
        return [storable(item) for item in ref]
    if isinstance(ref, str) and ref.startswith(('http://', 'https://')):
        return ref
    if isinstance(ref, dict) and 'array' in ref:
        return _keep_content(_wave(ref['array'], ref.get('sampling_rate')), '.wav')
    if isinstance(ref, (str, bytes, bytearray, memoryview, dict, os.PathLike)):
        if isinstance(ref, dict) and ref.get('path') and not any(ref.get(key) for key in _KEYS if key != 'path'):
            ref = ref['path']
        if is_path(ref):  # whether it is there is found out by whoever reads it
            return os.path.abspath(ref)
        found = source(ref)
        return os.path.abspath(found) if isinstance(found, str) else _keep_content(found, suffix_of(found) or '.bin')
    if hasattr(ref, 'getexif'):  # a PIL image
        from swift.media.budget import Budget
        from swift.media.image import load_image

        buffer = io.BytesIO()
        load_image(ref, Budget()).save(buffer, format='PNG', compress_level=1)
        return _keep_content(buffer.getvalue(), '.png')
    if hasattr(ref, 'shape'):
        import numpy as np

        buffer = io.BytesIO()
        np.save(buffer, np.asarray(ref), allow_pickle=False)
        return _keep_content(buffer.getvalue(), '.npy')
    raise RowError(f'a medium of this row is a {type(ref).__name__}, not a path, URL, bytes or picture')


def _wave(array: Any, rate: int | None) -> bytes:
    import soundfile

    from swift.media.audio import mono

    buffer = io.BytesIO()
    soundfile.write(buffer, mono(array), rate or 16_000, format='WAV', subtype='FLOAT')
    return buffer.getvalue()


_MAGIC = (
    (0, b'\xff\xd8\xff', '.jpg'), (0, b'\x89PNG\r\n', '.png'), (0, b'GIF8', '.gif'), (8, b'WEBP', '.webp'), (0, b'II*\0', '.tif'),
    (0, b'MM\0*', '.tif'), (128, b'DICM', '.dcm'), (4, b'ftypavif', '.avif'), (4, b'ftyp', '.mp4'), (0, b'\x1aE\xdf\xa3', '.mkv'),
    (8, b'AVI ', '.avi'), (8, b'WAVE', '.wav'), (0, b'fLaC', '.flac'), (0, b'OggS', '.ogg'), (0, b'ID3', '.mp3'), (0, b'\xff\xfb', '.mp3'),
    (0, b'BM', '.bmp'),
)  # fmt: skip
"""(where, what stands there, suffix) of the formats that are told from their first bytes."""


def suffix_of(data: bytes) -> str | None:
    """The suffix that files with these first bytes have; None: none of the known ones."""
    return next((suffix for at, mark, suffix in _MAGIC if data.startswith(mark, at)), None)


def _keep_content(data: bytes, suffix: str) -> str:
    path = _kept_at(hashlib.blake2b(data, digest_size=16).hexdigest(), suffix)
    return str(path if path.exists() else _keep(path, [data]))


def _kept_at(name: str, suffix: str) -> Path:
    return cache_folder() / name[:2] / f'{name}{suffix}'


def _keep(path: Path, pieces: Iterable[bytes]) -> Path:
    """Write aside and rename, so that another process never sees half a file."""
    aside = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:8]}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, 'wb') as file:
            for piece in pieces:
                file.write(piece)
        os.replace(aside, path)
    except OSError as error:
        raise RowError(f'the cache {path.parent} can not be written ({error});', hint='set SWIFT_CACHE to a writable folder') from error
    finally:
        with contextlib.suppress(OSError):  # it has its own name by now, or was never there
            aside.unlink()
    return path


def frames_of(ref: Any) -> Iterator[Any] | None:
    """The pictures of a video that is given frame by frame; None: it is a file."""
    if isinstance(ref, (list, tuple)):
        return iter(ref)
    if hasattr(ref, 'shape') and len(ref.shape) == 4:
        return iter(ref)
    if isinstance(ref, str) and ref.endswith('.npy') and os.path.isfile(ref):
        import numpy as np

        return iter(np.load(ref, mmap_mode='r', allow_pickle=False))
    return None
