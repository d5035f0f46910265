"""What `swift export` and `swift merge-lora` write."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ExportArgs:
    """What `swift.export` needs beside a model and its adapters."""

    merge_lora: bool = False
    """Merge the adapters into the model and write a model that needs none (always on in merge-lora)."""
    output_dir: str | None = None
    """Where the result goes; None: the first adapter's directory with -merged appended."""
    exist_ok: bool = False
    """Write into an existing directory."""
    safe_serialization: bool = True
    """Write safetensors; false: PyTorch .bin files."""
    max_shard_size: str = '5GB'
    """Largest weight file."""
    push_to_hub: bool = False
    """Upload the result."""
    hub_model_id: str | None = None
    """Repository for push_to_hub."""
    hub_private_repo: bool = False
    """Create that repository private."""
    commit_message: str = 'update files'
    """Message of the upload."""
