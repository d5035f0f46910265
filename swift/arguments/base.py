"""What every command understands: seeds, plugins, where settings come from."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class RunArgs:
    """Flags of the run itself, whatever the command does."""

    seed: int = 42
    """Seed of every random choice: initialisation, dropout, sampling."""
    external_plugins: list[str] = field(default_factory=list)
    """Python files imported before the run; they register losses, templates, models, callbacks."""
    load_args: bool = False
    """Take model, template and tuner settings from the args.json of the checkpoint; flags given here win."""
    load_data_args: bool = False
    """Take the data settings from the args.json of the checkpoint too (infer: answer its validation split)."""
    ignore_args_error: bool = False
    """Turn errors about unknown flags and flags without effect into warnings."""
    use_hf: bool = False
    """Load models and data sets from Hugging Face instead of ModelScope."""
    hub_token: str | None = None
    """Access token of the hub."""
