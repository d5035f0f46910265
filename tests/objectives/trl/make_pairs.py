"""Golden numbers of dpo, cpo, simpo and orpo, from TRL: `python -m tests.objectives.trl.make_pairs` writes pairs.json.

Each case is one forward and backward of TRL's own trainer on `batch.json` and the model of `batch.py`, in float32 on the CPU.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

import torch

from tests.helpers.tiny import build_tokenizer
from tests.objectives.trl.batch import FOLDER, pairs, tiny_model
from tests.objectives.trl.pair_cases import CASES, rows_of


def main() -> None:
    quiet()
    found = {}
    for label in CASES:
        found[label] = by_trl(label)
        print(label, found[label]['loss'], found[label]['grad_norm'])
    with open(os.path.join(FOLDER, 'pairs.json'), 'w', encoding='utf-8') as file:
        json.dump(found, file, indent=1)
        file.write('\n')


def quiet() -> None:
    """No progress bars of single rows."""
    import warnings

    from datasets import disable_progress_bars

    warnings.simplefilter('ignore')
    disable_progress_bars()


def by_trl(label: str) -> dict[str, Any]:
    """loss, grad_norm and metrics of a case as TRL computes them."""
    method, settings = CASES[label]
    rows, model = rows_of(label, pairs()), tiny_model()
    with tempfile.TemporaryDirectory() as folder:
        loss, metrics = (_dpo if method == 'dpo' else _without_reference)(method, settings, rows, model, folder)
    loss.backward()
    norm = torch.stack([p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]).sum().sqrt()
    kept = {name: value for name, value in metrics.items() if name.split('/')[0] in ('rewards', 'logps', 'nll_loss') or 'odds' in name}
    return {'loss': loss.item(), 'grad_norm': norm.item(), 'metrics': kept}


def _settings(folder: str) -> dict[str, Any]:
    return dict(output_dir=folder, use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False, disable_dropout=True)


def _dummy() -> Any:
    from datasets import Dataset

    return Dataset.from_list([{'prompt': 'a', 'chosen': 'b', 'rejected': 'c'}])


def _dpo(method: str, settings: dict, rows: list[dict], model: Any, folder: str) -> tuple[torch.Tensor, dict[str, float]]:
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    config = DPOConfig(**_settings(folder), **settings)
    trainer = DPOTrainer(
        model=model, ref_model=tiny_model(reference=True), args=config, train_dataset=_dummy(), processing_class=build_tokenizer()
    )
    examples = [{'prompt_ids': row['prompt'], 'chosen_ids': row['chosen'], 'rejected_ids': row['rejected']} for row in rows]
    loss = trainer._compute_loss(model, DataCollatorForPreference(pad_token_id=0)(examples), False)
    return loss, {name: values[0] for name, values in trainer._metrics['train'].items()}


def _without_reference(method: str, settings: dict, rows: list[dict], model: Any, folder: str) -> tuple[torch.Tensor, dict[str, float]]:
    if method == 'orpo':
        from trl.experimental.orpo import ORPOConfig as Config
        from trl.experimental.orpo import ORPOTrainer as Trainer
    else:
        from trl.experimental.cpo import CPOConfig as Config
        from trl.experimental.cpo import CPOTrainer as Trainer
    from trl.experimental.utils import DPODataCollatorWithPadding

    settings = {name: value[0] if name == 'loss_type' else value for name, value in settings.items()}
    config = Config(**_settings(folder), **settings, max_length=512)
    trainer = Trainer(model=model, args=config, train_dataset=_dummy(), processing_class=build_tokenizer())
    examples = []
    for row in rows:
        example = {}
        for side in ('chosen', 'rejected'):
            example[f'{side}_input_ids'] = row['prompt'] + row[side]
            example[f'{side}_attention_mask'] = [1] * len(example[f'{side}_input_ids'])
            example[f'{side}_labels'] = [-100] * len(row['prompt']) + row[side]
        examples.append(example)
    batch = DPODataCollatorWithPadding(pad_token_id=0)(examples)
    return trainer.get_batch_loss_metrics(model, batch, 'train')


if __name__ == '__main__':
    main()
