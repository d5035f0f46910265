"""Golden numbers of TRL's RewardTrainer: `python -m tests.objectives.trl.make_rm` writes rm.json (needs trl 1.16)."""

from __future__ import annotations

import json
import os
import tempfile

import torch
from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from tests.helpers.tiny import build_tokenizer
from tests.objectives.trl.batch import FOLDER, pairs
from tests.objectives.trl.reward import reward_model

CASES = {
    'plain': {'margin': False},
    'margin': {'margin': True},
    'centred': {'margin': False, 'center_rewards_coefficient': 0.3},
    'centred-margin': {'margin': True, 'center_rewards_coefficient': 0.01},
}
"""Label → fields of RewardConfig; `margin`: the rows carry their margins."""


def run(margin: bool, **settings) -> dict:
    """Loss, gradient norm and metrics of one batch."""
    model = reward_model()
    config = RewardConfig(
        tempfile.mkdtemp(), report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, disable_dropout=False, **settings
    )
    data = Dataset.from_list([{'chosen_ids': [3, 4], 'rejected_ids': [5, 6]}])
    trainer = RewardTrainer(model, config, train_dataset=data, processing_class=build_tokenizer())
    examples = [
        {'chosen_ids': row['prompt'] + row['chosen'], 'rejected_ids': row['prompt'] + row['rejected'], 'margin': row['margin']}
        for row in pairs()
    ]
    if not margin:
        examples = [{name: ids for name, ids in row.items() if name != 'margin'} for row in examples]
    loss = trainer.compute_loss(model, trainer.data_collator(examples))
    loss.backward()
    norm = torch.stack([p.grad.double().norm() for p in model.parameters() if p.grad is not None]).norm()
    metrics = {name: trainer._metrics['eval'][name][-1] for name in ('accuracy', 'margin')}
    return {'settings': {'margin': margin, **settings}, 'loss': loss.item(), 'grad_norm': norm.item(), 'metrics': metrics}


if __name__ == '__main__':
    with open(os.path.join(FOLDER, 'rm.json'), 'w', encoding='utf-8') as file:
        json.dump({label: run(**settings) for label, settings in CASES.items()}, file, indent=1)
        file.write('\n')
