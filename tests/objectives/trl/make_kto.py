"""Golden numbers of TRL's KTOTrainer: `python -m tests.objectives.trl.make_kto` writes kto.json (needs trl 1.16)."""

from __future__ import annotations

import json
import os
import tempfile

import torch
from datasets import Dataset
from trl import KTOConfig, KTOTrainer

from tests.helpers.tiny import build_tokenizer
from tests.objectives.trl.batch import FOLDER, pairs, tiny_model

CASES = {
    'kto': {},
    'kto-away': {'away': True},
    'kto-weights': {'away': True, 'desirable_weight': 1.5, 'undesirable_weight': 0.6, 'beta': 0.3},
    'kto-desirable-only': {'away': True, 'keep': True},
    'kto-undesirable-only': {'away': True, 'keep': False},
    'apo_zero_unpaired': {'loss_type': 'apo_zero_unpaired'},
    'apo_zero_unpaired-weights': {'loss_type': 'apo_zero_unpaired', 'desirable_weight': 0.5, 'undesirable_weight': 2.0, 'beta': 0.5},
}
"""Label → fields of KTOConfig; `away`: policy and reference change places, which makes the KL estimate positive; `keep`: only
the rows of this label."""


def examples(keep: bool | None) -> list[dict]:
    """Rows as TRL's collator wants them; the mismatched answer is that of the row before, as TRL takes it."""
    rows = [row for row in pairs() if keep in (None, row['label'])]
    answers = [row['chosen'] if row['label'] else row['rejected'] for row in rows]
    return [
        {'prompt_ids': row['prompt'], 'completion_ids': answers[i], 'KL_completion_ids': answers[i - 1], 'label': row['label']}
        for i, row in enumerate(rows)
    ]


def run(away: bool = False, keep: bool | None = None, **settings) -> dict:
    """Loss, gradient norm and metrics of one batch."""
    policy, reference = tiny_model(reference=away), tiny_model(reference=not away)
    config = KTOConfig(
        tempfile.mkdtemp(), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, disable_dropout=False,
        train_sampling_strategy='sequential', per_device_train_batch_size=6, **settings,
    )  # fmt: skip
    data = Dataset.from_list([{'prompt': 'a', 'completion': 'b', 'label': True}, {'prompt': 'c', 'completion': 'd', 'label': False}])
    trainer = KTOTrainer(policy, reference, config, train_dataset=data, processing_class=build_tokenizer())
    loss = trainer.compute_loss(policy, trainer.data_collator(examples(keep)))
    loss.backward()
    norm = torch.stack([p.grad.double().norm() for p in policy.parameters() if p.grad is not None]).norm()
    names = ('kl', 'rewards/chosen', 'rewards/rejected', 'rewards/margins', 'logps/chosen', 'logps/rejected')
    metrics = {name: values[-1] for name, values in trainer._metrics['eval'].items() if name in names}
    return {'settings': {'away': away, 'keep': keep, **settings}, 'loss': loss.item(), 'grad_norm': norm.item(), 'metrics': metrics}


if __name__ == '__main__':
    with open(os.path.join(FOLDER, 'kto.json'), 'w', encoding='utf-8') as file:
        json.dump({label: run(**settings) for label, settings in CASES.items()}, file, indent=1)
        file.write('\n')
