"""What users write around a training, in the shapes they write it: losses, trainers, callbacks, registries, metrics, task routing."""

import json
import os
import textwrap

import pytest
import torch
from torch import nn

from swift import Evaluator, Swift, Trainer, TrainerCallback, TrainingArguments, register_loss
from swift.core.errors import SwiftError
from swift.plugin import MultiTaskLoss, TaskRouter, loss_map
from tests.helpers.tiny import build_model
from tests.pipelines.conftest import write_rows

PAD = 0


def rows(count=6):
    ids = torch.arange(4, 20)
    return [{'input_ids': ids, 'labels': ids} for _ in range(count)]


def arguments(folder, **settings):
    usual = dict(max_steps=2, save_strategy='no', report_to='none', use_cpu=True, disable_tqdm=True, logging_steps=1, learning_rate=1e-3)
    return TrainingArguments(str(folder), **{**usual, **settings})


class Length:
    """Cross entropy plus a charge for answers that are not as long as they should be."""

    def __init__(self, target=100, charge=0.1):
        self.target, self.charge = target, charge

    def __call__(self, model, inputs, return_outputs=False):
        outputs = model(**inputs)
        size = (outputs.logits.argmax(dim=-1) != PAD).sum(dim=-1).float().mean()
        total = outputs.loss + self.charge * abs(size - self.target) / self.target
        return (total, outputs) if return_outputs else total


class Charged(Trainer):
    """A trainer with an argument and a loss of its own, in the short signature."""

    def __init__(self, *args, extra=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.extra = extra

    def compute_loss(self, model, inputs, return_outputs=False):
        return self.extra(model, inputs, return_outputs) if self.extra else super().compute_loss(model, inputs, return_outputs)


def first_loss(trainer):
    trainer.train()
    return next(record['loss'] for record in trainer.state.log_history if 'loss' in record)


def test_a_trainer_with_a_loss_object(tmp_path):
    plain = first_loss(Charged(model=build_model(), args=arguments(tmp_path), train_dataset=rows()))
    charged = first_loss(Charged(model=build_model(), args=arguments(tmp_path), train_dataset=rows(), extra=Length(160, 0.5)))
    assert charged == pytest.approx(plain + 0.5 * (160 - 16) / 160, abs=1e-3)
    assert plain == pytest.approx(first_loss(Trainer(model=build_model(), args=arguments(tmp_path), train_dataset=rows())), abs=1e-4)
    halves = arguments(tmp_path, gradient_accumulation_steps=2, per_device_train_batch_size=3)
    assert first_loss(Charged(model=build_model(), args=halves, train_dataset=rows(), extra=Length(160, 0.5))) == pytest.approx(charged, abs=1e-3)


def test_the_same_loss_by_name_through_a_factory(quick, tmp_path):
    @register_loss('house_length')
    def make(target=100, charge=0.1):
        return Length(target, charge)

    try:
        plain = Swift.sft(**{**quick, 'max_steps': 1, 'lora_dropout': 0.0})
        found = Swift.sft(**{**quick, 'max_steps': 1, 'lora_dropout': 0.0}, loss_type='house_length', loss_kwargs={'target': 1, 'charge': 0.0})
        assert found['log_history'][0]['loss'] == pytest.approx(plain['log_history'][0]['loss'], abs=1e-4)
        more = Swift.sft(**{**quick, 'max_steps': 1, 'lora_dropout': 0.0}, loss_type='house_length', loss_kwargs={'target': 10000, 'charge': 1.0})
        assert more['log_history'][0]['loss'] - plain['log_history'][0]['loss'] == pytest.approx(1.0, abs=0.05)
        with pytest.raises(SwiftError, match='loss_kwargs do not fit'):
            Swift.sft(**{**quick, 'max_steps': 1}, loss_type='house_length', loss_kwargs={'lenght': 3})
    finally:
        del loss_map['house_length']


class KeepBest(TrainerCallback):
    """Saves whenever a metric is at its best, and writes the best figures down at the end."""

    def __init__(self, metric='eval_accuracy', keep=3):
        self.metric, self.keep, self.best = metric, keep, []

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if metrics is None or self.metric not in metrics:
            return control
        self.best.append((metrics[self.metric], state.global_step))
        self.best.sort(reverse=True)
        self.best = self.best[: self.keep]
        if self.best[0][1] == state.global_step:
            control.should_save = True
        return control

    def on_train_end(self, args, state, control, **kwargs):
        with open(os.path.join(args.output_dir, 'best_scores.json'), 'w') as file:
            json.dump({'metric': self.metric, 'top_k': [{'score': score, 'step': step} for score, step in self.best]}, file)


class Slower(TrainerCallback):
    """Halves the learning rate where the loss has stopped falling."""

    def __init__(self, patience=1, least=1e-6):
        self.patience, self.least, self.bad, self.lowest, self.rates = patience, least, 0, float('-inf'), []

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.bad += metrics['eval_loss'] >= self.lowest  # never low enough: every evaluation counts
        if self.bad >= self.patience:
            for group in kwargs['optimizer'].param_groups:
                group['lr'] = max(group['lr'] * 0.5, self.least)
                self.rates.append(group['lr'])
            self.bad = 0
        return control


def test_callbacks_see_metrics_and_optimizer(tmp_path):
    settings = dict(eval_strategy='steps', eval_steps=1, max_steps=3, lr_scheduler_type='constant')
    missing, kept, slower = KeepBest('eval_accuracy'), KeepBest('eval_loss', keep=2), Slower()
    folders = [tmp_path / 'missing', tmp_path / 'kept']
    for folder, callbacks in zip(folders, ([missing], [kept, slower]), strict=True):
        trainer = Trainer(build_model(), arguments(folder, **settings), train_dataset=rows(), eval_dataset=rows(2), callbacks=callbacks)
        trainer.train()
    assert json.loads((folders[0] / 'best_scores.json').read_text()) == {'metric': 'eval_accuracy', 'top_k': []}
    stored = json.loads((folders[1] / 'best_scores.json').read_text())
    assert [item['score'] for item in stored['top_k']] == sorted((score for score, _ in kept.best), reverse=True)
    assert (folders[1] / 'checkpoint-1').is_dir() and not (folders[0] / 'checkpoint-1').exists()
    assert slower.rates[:: len(slower.rates) // 3] == pytest.approx([5e-4, 2.5e-4, 1.25e-4])


REGISTRIES = '''
from swift.model import ModelMeta, models_map, register_model
from swift.template import Template, register_template, templates_map
from swift.callbacks import callbacks_map
from swift.metrics import eval_metrics_map
from swift.optimizers import OptimizerCallback, optimizers_map
from transformers import TrainerCallback

@register_template('house_plain_turns')
class Turns(Template):
    system_prefix = 'S {{SYSTEM}} '
    user_prefix = 'Q {{QUERY}} '
    assistant_prefix = 'A {{RESPONSE}}<|im_end|>'

@register_model('house-own-model')
def own_model():
    return ModelMeta(model_id='nobody/house-own-model', template='house_plain_turns', arch='Qwen3ForCausalLM', task='text-generation')

class Counts(TrainerCallback):
    steps = 0
    def on_step_end(self, args, state, control, **kwargs):
        Counts.steps += 1

callbacks_map['house_counts'] = Counts
eval_metrics_map['house_lengths'] = lambda predictions, references: {'house_lengths': sum(map(len, references)) / len(references)}
optimizers_map['house_frozen'] = type('Frozen', (OptimizerCallback,), {
    'create_optimizer': lambda self: __import__('torch').optim.SGD(self.trainable(), lr=0.0)})
'''


def test_registries_are_filled_by_decorators_and_assignment(quick, tmp_path, monkeypatch):
    plugin = tmp_path / 'house_registries.py'
    plugin.write_text(textwrap.dedent(REGISTRIES))
    result = Swift.sft(**quick, external_plugins=str(plugin), template='house_plain_turns', callbacks='house_counts', optimizer='house_frozen',
                       split_dataset_ratio=0.2, predict_with_generate=True, eval_metric='house_lengths', max_new_tokens=2, eval_steps=4,
                       metric_for_best_model='house_lengths', lora_dropout=0.0)  # fmt: skip
    from swift.callbacks import callbacks_map
    from swift.model import models_map
    from swift.template import templates_map

    assert 'house_plain_turns' in templates_map and 'house-own-model' in models_map
    assert callbacks_map['house_counts'].steps == 4
    assert result['best_metric'] > 5
    saved = json.load(open(os.path.join(result['last_model_checkpoint'], 'args.json')))
    assert saved['template'] == 'house_plain_turns'


def test_an_evaluator_with_a_metric_of_ones_own(quick, tmp_path):
    result = Swift.sft(**{**quick, 'max_steps': 1})
    data = write_rows(tmp_path / 'eval.jsonl', [{'query': f'what is {i}', 'response': 'zero' if i else ''} for i in range(5)])
    seen = []

    def same(predictions, references):
        seen.append((predictions, references))
        return {'accuracy': sum(p == r for p, r in zip(predictions, references, strict=True)) / len(predictions)}

    evaluator = Evaluator(model_path=result['run_dir'], eval_dataset=data, metrics=[same, 'exact_match'], batch_size=2, max_new_tokens=3)
    found = evaluator.evaluate()
    assert set(found) == {'accuracy', 'exact_match'} and found['exact_match'] == 100 * found['accuracy']
    assert seen[0][1] == ['zero'] * 4 and len(evaluator.rows) == 5
    assert evaluator.evaluate() == found  # greedy: the same again
    assert Evaluator(model_path=result['run_dir'], eval_dataset=data, metrics=['exact'], max_new_tokens=3).evaluate() == {'exact': found['accuracy']}
    with pytest.raises(SwiftError, match='without metrics'):
        Evaluator(model_path=result['run_dir'], eval_dataset=data)
    asked = write_rows(tmp_path / 'asked.jsonl', [{'query': 'only a question'}])
    with pytest.raises(SwiftError, match='no row of the evaluation data'):
        Evaluator(result['run_dir'], asked, [same], max_new_tokens=1).evaluate()


def test_task_router_and_multi_task_loss_stand_alone():
    torch.manual_seed(0)
    hidden = torch.randn(3, 5, 8)
    router = TaskRouter(hidden_size=8, num_tasks=4)
    nn.init.normal_(router.gate.weight)
    shares = router(hidden)
    assert shares.shape == (3, 4) and torch.allclose(shares.sum(-1), torch.ones(3))
    torch.testing.assert_close(shares, torch.softmax(router.gate(hidden[:, 0, :]), dim=-1))
    joint = MultiTaskLoss(num_tasks=2)
    assert dict(joint.named_parameters()).keys() == {'log_vars'}
    with torch.no_grad():
        joint.log_vars.copy_(torch.tensor([0.5, -1.0]))
    losses = [torch.tensor(2.0), torch.tensor(3.0)]
    wanted = sum(torch.exp(-s) * loss + s for s, loss in zip(joint.log_vars, losses, strict=True))
    torch.testing.assert_close(joint(losses), wanted)
    joint(losses).backward()
    torch.testing.assert_close(joint.log_vars.grad, torch.tensor([1 - 2 * torch.exp(torch.tensor(-0.5)), 1 - 3 * torch.exp(torch.tensor(1.0))]))
