"""The chat page of `swift app`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class AppArgs:
    """What `swift app` shows, and where."""

    server_name: str = '127.0.0.1'
    """Address to listen on; 0.0.0.0: every interface."""
    server_port: int = 7860
    """Port to listen on; 0: any free one."""
    share: bool = False
    """Make a public link through Gradio's servers."""
    lang: Literal['en', 'zh'] | None = None
    """Language of the page; None: that of the browser. The page can switch it."""
    studio_title: str | None = None
    """Heading of the page; None: the model's name."""
    is_multimodal: bool | None = None
    """Offer uploads; None: for models that see or hear (with --infer_backend client: no)."""
    open_browser: bool = False
    """Open the page in a browser of this machine."""
