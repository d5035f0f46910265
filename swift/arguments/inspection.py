"""What `swift preview` and `swift verify` show and compare."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class PreviewArgs:
    """What `swift preview` shows."""

    num_samples: int = 3
    """Samples shown."""
    html: str | None = None
    """Write the samples to this file too, as a page with their images, videos and sounds; a file that exists is not touched."""


@dataclass
class VerifyArgs:
    """What `swift verify` compares."""

    merged_model: str | None = None
    """Merged model that must answer as model with adapters does."""
    serve: bool = False
    """Also start a server with the model: what it shows the model must be what training showed, and its adapters must be whole."""
