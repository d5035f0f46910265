"""How a conversation becomes tokens, and which of them are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from swift.arguments.media import MediaArgs


@dataclass
class TemplateArgs(MediaArgs):
    """What `swift.template` needs beside the tokenizer."""

    template: str | None = None
    """Chat template: a name of the table, a .jinja file; None: the tokenizer's own."""
    system: str | None = None
    """System prompt (or a .txt file) for rows that have none."""
    max_length: int | None = None
    """Longest sample in tokens; None: the model's own limit."""
    truncation_strategy: Literal['delete', 'left', 'right', 'split'] = 'delete'
    """What happens to longer rows: delete them, cut on one side, or split (plain text only)."""
    use_chat_template: bool = True
    """Format rows with the chat template; false: plain text (the default of pt)."""
    loss_scale: str = 'default'
    """Which tokens are trained and how much: default, last_round, all, ignore_empty_think, or a JSON file of weighted patterns."""
    padding_free: bool | None = None
    """Run micro-batches flat, without padding; None: whenever the model can; true: error if it can't; false: never."""
    agent_template: str | None = None
    """Format of tool calls: a name of the table; None: as the chat template writes them."""
    enable_thinking: bool | None = None
    """Passed to the chat template; None: the template's own default."""
    preserve_thinking: bool | None = None
    """Keep the reasoning of earlier turns; None: as the chat template does."""
    add_non_thinking_prefix: bool = True
    """Give answers without reasoning the empty think block that a thinking template prompts with."""
    response_prefix: str | None = None
    """Text that every answer starts with, at inference and in training; None: the template's own."""
