"""What `swift deploy` listens on, whom it lets in, and how much it takes on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Literal

_NAMED = re.compile(r'([\w.\-:]+)=(.+)', re.DOTALL)


@dataclass
class DeployArgs:
    """What `swift deploy` does."""

    host: str | None = None
    """Address to listen on; None: 0.0.0.0 (every interface), or 127.0.0.1 with local_only."""
    local_only: bool = False
    """Listen on 127.0.0.1, so that only this machine can ask."""
    port: int = 8000
    """Port to listen on; 0: any free one."""
    api_key: str | None = None
    """Key that requests must carry (Authorization: Bearer …); None: any key is accepted, and none."""
    enable_ssl: bool = False
    """Serve HTTPS, with a self-signed certificate unless ssl_certfile is given."""
    ssl_keyfile: str | None = None
    """Private key of HTTPS (PEM)."""
    ssl_certfile: str | None = None
    """Certificate of HTTPS (PEM)."""
    served_model_name: str | None = None
    """Name of the model in requests; None: the last part of the model's id or path."""
    owned_by: str = 'swift'
    """Owner of the models in /v1/models."""
    max_logprobs: int = 20
    """Most alternatives that a request may ask for at every token."""
    max_queue: int = 1024
    """Answers that may wait beyond max_batch_size; more are refused with 429."""
    max_request_size: int = 64
    """Largest body of a request, in MiB; a larger one is refused with 413."""
    request_timeout: float = 600.0
    """Seconds that a request may take, waiting included, before it ends with 408; 0: any time."""
    allowed_local_media_path: str | None = None
    """Folder whose files requests may name as images, videos or sounds; None: none."""
    allowed_media_domains: list[str] = field(default_factory=list)
    """Hosts that media may be fetched from by URL; none: any."""
    result_path: str | None = None
    """File that every answer is appended to, as jsonl."""
    verbose: bool = False
    """Log every request: what it asked for, its status, its time."""
    log_interval: int = 20
    """Seconds between lines that say how much is answered; 0: no such lines."""
    log_level: Literal['critical', 'error', 'warning', 'info', 'debug', 'trace'] = 'info'
    """Least important messages of the server that are shown."""


def named(adapter: str) -> tuple[str | None, str]:
    """(name, path) of `name=path`; a path alone has no name."""
    match = _NAMED.fullmatch(adapter)
    return (match[1], match[2]) if match and not os.path.exists(adapter) else (None, adapter)
