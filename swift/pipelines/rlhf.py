"""`swift rlhf`: the path of `swift sft` with a preference objective, and a reference model where it has one."""

from __future__ import annotations

from typing import Any

from swift.pipelines.train import SwiftSft


def rlhf_main(args: Any = None) -> dict[str, Any]:
    """Train on preferences. `args`: None (sys.argv), a list of words, a mapping, or RLHFArguments; returns what `sft_main` does."""
    return SwiftRLHF(args).main()


class SwiftRLHF(SwiftSft):
    """The pipeline of `swift rlhf`."""

    command = 'rlhf'
