"""A preference training from Python, of a model in hand, with a callback of your own.

python examples/custom/trainer.py
"""

import json

from swift import LoRAConfig, TrainerCallback, get_model_processor
from swift.rlhf_trainers import DPOConfig, DPOTrainer


class Watch(TrainerCallback):
    """Halves the learning rate when the evaluation gets no better."""

    lowest = float('inf')

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if metrics['eval_loss'] >= self.lowest:
            for group in kwargs['optimizer'].param_groups:
                group['lr'] /= 2
        self.lowest = min(self.lowest, metrics['eval_loss'])


def main():
    model, tokenizer = get_model_processor('tiny')
    rows = [json.loads(line) for line in open('examples/data/preference_shorter.jsonl', encoding='utf-8')]
    config = DPOConfig(
        'output/custom_trainer', beta=0.1, learning_rate=1e-3, max_steps=20, per_device_train_batch_size=8, eval_steps=10, report_to='none'
    )
    trainer = DPOTrainer(
        model,
        args=config,
        train_dataset=rows[:400],
        eval_dataset='examples/data/preference_shorter_heldout.jsonl#40',
        processing_class=tokenizer,
        peft_config=LoRAConfig(r=8),
        callbacks=[Watch()],
    )
    trainer.train()
    print(f'held-out accuracy {trainer.evaluate()["eval_rewards/accuracies"]:.2f}')


if __name__ == '__main__':
    main()
