"""What `swift preview` and `swift verify` show and compare."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class PreviewArgs:
    """What `swift preview` shows."""

    num_samples: int = 3
    """Samples shown."""


@dataclass
class VerifyArgs:
    """What `swift verify` compares."""

    merged_model: str | None = None
    """Merged model that must answer as model with adapters does."""
