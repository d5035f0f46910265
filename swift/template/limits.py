"""What no loss mask can repair in a chat template, said once in a run."""

from __future__ import annotations

from swift.core.log import warn_once
from swift.template.probe import Facts


def tell_limits(facts: Facts, messages: list[dict], trained: int, *, empty_think: bool) -> None:
    """Warn about what the template does to these messages.

    `trained`: how many assistant turns are trained; `empty_think`: answers without reasoning get an empty think block.
    """
    if not facts.continues and not (empty_think and facts.empty_think and trained == 1):
        warn_once(
            "The chat template's own answers do not continue its generation prompt: training starts where they part."
        )
    if facts.rewrites and trained > 1:
        warn_once(
            'The chat template rewrites earlier turns (reasoning is removed), so they are trained as the model will '
            'never produce them. To train the last round only: --loss_scale last_round.'
        )
    if not facts.keeps_reasoning and not facts.empty_think and messages[-1].get('reasoning_content'):
        warn_once(
            'The chat template drops reasoning_content, so it is not trained. To train it, write it into the content '
            'as <think>…</think>, or choose another --template.'
        )
