"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290)."""

from __future__ import annotations

from torch.nn.functional import logsigmoid

from swift.core.types import Actors, Batch, Loss
from swift.objectives.preference import Pairs, Preference, reference_logps, segment_sums


class DPO(Preference):
    """`args`: beta (RlhfArgs)."""

    roles = ('policy', 'reference')

    def loss(self, batch: Batch, actors: Actors) -> Loss:
        tokens = actors.policy.answer_logps(batch)
        ratio = Pairs.of(segment_sums(tokens, tokens.logps - reference_logps(batch, actors), len(batch.lengths)))
        rewards = self.args.beta * ratio.gap
        return Loss(-logsigmoid(rewards).sum(), {'rewards/margins': rewards, 'rewards/accuracies': rewards > 0})
