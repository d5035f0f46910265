"""One file of a user's own: loss, callback, metric, optimizer, template and data set, used by name in one run."""

import json
import os
import textwrap

import torch

from swift import Swift, Trainer, TrainerCallback, TrainingArguments
from tests.helpers.tiny import build_model

PLUGIN = '''
import json, os
import torch
from swift.plugin import (callbacks_map, eval_metrics_map, loss_map, optimizers_map, OptimizerCallback, register_dataset,
                          register_loss, register_template)
from swift.callbacks import TrainerCallback
from swift.dataset import DatasetMeta

@register_loss('house_halved')
class Halved:
    def __init__(self, factor=1.0):
        self.factor = factor
    def __call__(self, outputs, labels, num_items_in_batch=None):
        logits, labels = outputs.logits[:, :-1], labels[:, 1:]
        return self.factor * torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)

class Note(TrainerCallback):
    def on_train_end(self, args, state, control, **kwargs):
        with open(os.path.join(args.output_dir, 'note.json'), 'w') as file:
            json.dump({'steps': state.global_step}, file)

class Plain(OptimizerCallback):
    def create_optimizer(self):
        return torch.optim.SGD(self.trainable(), lr=self.args.learning_rate)

@register_template('house_shout')
class Shout:
    user_prefix = 'USER {{QUERY}}\\n'
    assistant_prefix = 'BOT {{RESPONSE}}<|im_end|>\\n'

callbacks_map['house_note'] = Note
optimizers_map['house_plain'] = Plain
eval_metrics_map['house_starts'] = lambda predictions, references: {'house_starts': 7.0}
register_dataset(DatasetMeta(dataset_name='house_rows', dataset_path=os.environ['HOUSE_ROWS'],
                             preprocess_func=lambda row: {'query': row['query'].upper(), 'response': 'yes'}))
'''


def test_everything_of_a_plugin_is_used_by_name(quick, tmp_path, monkeypatch):
    monkeypatch.setenv('HOUSE_ROWS', quick['dataset'] if '#' not in quick['dataset'] else '')
    plugin = tmp_path / 'house_plugin.py'
    plugin.write_text(textwrap.dedent(PLUGIN))
    rows = tmp_path / 'rows.jsonl'
    rows.write_text('\n'.join(json.dumps({'query': f'is {i} fine', 'response': 'no'}) for i in range(8)))
    monkeypatch.setenv('HOUSE_ROWS', str(rows))
    common = {**quick, 'dataset': 'house_rows', 'val_dataset': str(rows), 'external_plugins': str(plugin), 'template': 'house_shout',
              'predict_with_generate': True, 'eval_metric': 'house_starts', 'metric_for_best_model': 'house_starts', 'max_new_tokens': 2,
              'lora_dropout': 0}  # fmt: skip
    plain = Swift.sft(**common, optimizer='house_plain', callbacks='house_note')
    halved = Swift.sft(**common, optimizer='house_plain', callbacks='house_note', loss_type='house_halved', loss_kwargs={'factor': 0.5})
    assert json.load(open(os.path.join(plain['run_dir'], 'note.json'))) == {'steps': 4}
    assert plain['best_metric'] == 7.0
    first = [result['log_history'][0] for result in (plain, halved)]
    assert abs(first[1]['loss'] - 0.5 * first[0]['loss']) < 2e-3
    assert abs(first[1]['grad_norm'] - 0.5 * first[0]['grad_norm']) < 2e-2
    answers = [json.loads(line) for line in open(os.path.join(plain['run_dir'], 'predict.jsonl'))]
    assert {answer['labels'] for answer in answers} == {'no'}


TUNER = '''
from swift.tuner_plugin import Tuner, tuners_map

class NormsOnly(Tuner):
    def __init__(self, model, config):
        super().__init__(model, config)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_('norm' in name)

tuners_map['house_norms'] = NormsOnly
'''


def test_a_tuner_of_ones_own_is_chosen_by_name(quick, tmp_path):
    from safetensors.torch import load_file

    from swift import sft_main

    plugin = tmp_path / 'house_tuner.py'
    plugin.write_text(TUNER)
    words = [word for name, value in quick.items() for word in (f'--{name}', str(value))]
    result = sft_main([*words, '--external_plugins', str(plugin), '--tuner_type', 'house_norms'])
    stored = load_file(os.path.join(result['last_model_checkpoint'], 'tuner_model.safetensors'))
    assert stored and all('norm' in name for name in stored)
    losses = [record['loss'] for record in result['log_history'] if 'loss' in record]
    assert losses[-1] < losses[0]


class TopScores(TrainerCallback):
    """Saves where a metric is best, and lowers the learning rate where it is not."""

    def __init__(self):
        self.scores, self.lowered = [], 0

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.scores.append((metrics['eval_loss'], state.global_step))
        if min(self.scores)[1] == state.global_step:
            control.should_save = True
        else:
            for group in kwargs['optimizer'].param_groups:
                group['lr'] *= 0.5
            self.lowered += 1
        return control

    def on_train_end(self, args, state, control, **kwargs):
        with open(os.path.join(args.output_dir, 'best_scores.json'), 'w') as file:
            json.dump(sorted(self.scores), file)


class OwnLoss(Trainer):
    """A subclass with the short signature."""

    def compute_loss(self, model, inputs, return_outputs=False):
        outputs = model(**inputs)
        loss = outputs.loss * 2
        return (loss, outputs) if return_outputs else loss


def _rows():
    ids = torch.arange(4, 20)
    return [{'input_ids': ids, 'labels': ids} for _ in range(8)]


def test_trainer_from_python_with_callbacks_and_a_loss_of_ones_own(tmp_path):
    args = TrainingArguments(str(tmp_path), max_steps=3, eval_strategy='steps', eval_steps=1, save_strategy='no', report_to='none',
                             use_cpu=True, disable_tqdm=True, logging_steps=1, learning_rate=1e-2)  # fmt: skip
    scores = TopScores()
    trainer = OwnLoss(model=build_model(), args=args, train_dataset=_rows(), eval_dataset=_rows(), callbacks=[scores])
    trainer.train()
    logged = [record['loss'] for record in trainer.state.log_history if 'loss' in record]
    plain = Trainer(model=build_model(), args=args, train_dataset=_rows(), eval_dataset=_rows())
    plain.train()
    other = [record['loss'] for record in plain.state.log_history if 'loss' in record]
    assert abs(logged[0] - 2 * other[0]) < 1e-4
    assert len(json.load(open(tmp_path / 'best_scores.json'))) == 3
    saved = [name for name in os.listdir(tmp_path) if name.startswith('checkpoint')]
    assert saved and 3 - len(saved) == scores.lowered
