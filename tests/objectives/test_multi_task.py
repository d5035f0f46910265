"""Several tasks in one training: what each weighing computes, what it learns, how its own parameters are kept."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from swift.core.errors import CheckpointError, RowError, SwiftError
from swift.core.types import Actors, AnswerTokens, Conversation, Sample
from swift.dataset import DatasetLoader
from swift.objectives.multi_task import MultiTask, MultiTaskLoss, TaskRouter
from swift.objectives.sft import SFT
from swift.pipelines.train import sft_main
from swift.trainers import own

DATA = Path(__file__).resolve().parents[2] / 'examples' / 'data'
NAMES = ['qa', 'sum', 'mt']


def make(routing='fixed', weights=None, **more):
    args = dict(tasks=NAMES, task_weights=weights, routing_strategy=routing, label_smoothing_factor=0.0, enable_dft_loss=False,
                z_loss_coef=0.0, enable_channel_loss=False, acc_strategy='token')  # fmt: skip
    return MultiTask(SimpleNamespace(**{**args, **more}), hidden_size=8)


class Model:
    """An actor that gives what it is told: `losses` of the labelled tokens, hidden states by segment."""

    def __init__(self, losses, hidden=None):
        self.losses, self.states = torch.tensor(losses, requires_grad=True), hidden

    def answer_logps(self, batch, want=()):
        found = batch.extra['answers']
        hidden = self.states[found['segment']] if 'hidden' in want else None
        return AnswerTokens(-self.losses, found['segment'], found['index'], torch.arange(len(self.losses)) % 2 == 0, hidden=hidden)


def samples(*tasks, tokens=2, weights=None):
    """A sample with `tokens` labels for every task named."""
    factors = None if weights is None else [1.0, *weights]
    return [Sample([5] * (tokens + 1), [-100] + [5] * tokens, factors, channel=task) for task in tasks]


def run(objective, tasks, losses, hidden=None, weights=None):
    model = Model(losses, hidden)
    batch = objective.collate(samples(*tasks, weights=weights))
    return objective.loss(batch, Actors(model)), float(objective.weight(batch)), model


def test_fixed_weights_multiply_every_token_of_a_task():
    objective = make(weights=[1.0, 0.5, 2.0])
    loss, weight, model = run(objective, ['qa', 'mt', 'sum'], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert loss.sum.item() == pytest.approx(1 * 3 + 2 * 7 + 0.5 * 11) and weight == 6
    loss.sum.backward()
    assert model.losses.grad.tolist() == [1, 1, 2, 2, 0.5, 0.5]
    means = {name: values.mean().item() for name, values in loss.metrics.items()}
    assert means == pytest.approx({
        'token_acc': 0.5, 'loss_qa': 1.5, 'loss_mt': 3.5, 'loss_sum': 5.5, 'token_acc_qa': 0.5, 'token_acc_mt': 0.5,
        'token_acc_sum': 0.5, 'weight_qa': 1.0, 'weight_mt': 2.0, 'weight_sum': 0.5,
    })  # fmt: skip


def test_weights_of_tokens_multiply_too():
    loss, _, _ = run(make(weights=[1.0, 0.5, 2.0]), ['mt'], [1.0, 2.0], weights=[0.5, 3.0])
    assert loss.sum.item() == pytest.approx(2 * (0.5 * 1 + 3 * 2))


def test_equal_weights_are_sft():
    objective, losses = make(), [0.3, 1.2, 0.7, 2.2]
    mine, weight, _ = run(objective, ['qa', 'sum'], losses)
    plain = SFT(objective.args)
    theirs = plain.loss(plain.collate(samples('qa', 'sum')), Actors(Model(losses)))
    assert torch.equal(mine.sum, theirs.sum) and objective.module is None


def test_uncertainty_is_the_likelihood_with_one_variance_a_task():
    objective = make('uncertainty', weights=[1.0, 0.5, 1.0])
    s = torch.tensor([0.2, -0.4, 1.0])
    objective.module.log_vars.data.copy_(s)
    loss, _, model = run(objective, ['qa', 'sum'], [1.0, 2.0, 3.0, 4.0])
    expected = math.exp(-0.2) * 3 + 2 * 0.2 + 0.5 * (math.exp(0.4) * 7 + 2 * -0.4)
    assert loss.sum.item() == pytest.approx(expected, rel=1e-6)
    loss.sum.backward()
    assert model.losses.grad.tolist() == pytest.approx([math.exp(-0.2)] * 2 + [0.5 * math.exp(0.4)] * 2)
    # derivative by s: w · Σ (1 - exp(-s) l); a task without a row in the batch has none
    assert objective.module.log_vars.grad.tolist() == pytest.approx([2 - math.exp(-0.2) * 3, 0.5 * (2 - math.exp(0.4) * 7), 0.0])
    assert loss.metrics['weight_sum'].tolist() == pytest.approx([0.5 * math.exp(0.4)] * 2)


def test_learned_variances_end_where_a_task_counts_one_over_its_loss():
    objective = make('uncertainty')
    optimizer = torch.optim.Adam(objective.module.parameters(), lr=0.05)
    for _ in range(150):
        loss, weight, _ = run(objective, ['qa', 'sum', 'mt'], [0.5, 0.5, 2.0, 4.0, 1.0, 1.0])
        optimizer.zero_grad()
        (loss.sum / weight).backward()
        optimizer.step()
    assert objective.module.weights().tolist() == pytest.approx([2.0, 1 / 3, 1.0], rel=1e-2)


def test_the_loss_of_tasks_as_a_module():
    module = MultiTaskLoss(3)
    losses = [torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0)]
    assert module(losses).item() == 6 == module(torch.stack(losses)).item()
    module.log_vars.data.copy_(torch.tensor([0.5, -0.5, 0.0]))
    assert module(losses).item() == pytest.approx(math.exp(-0.5) + 0.5 + 2 * math.exp(0.5) - 0.5 + 3)
    module(losses).backward()
    assert module.log_vars.grad.tolist() == pytest.approx([1 - math.exp(-0.5), 1 - 2 * math.exp(0.5), -2.0])


def test_the_router_as_a_module():
    router, states = TaskRouter(8, 3), torch.randn(4, 5, 8)
    assert router(states).tolist() == [[pytest.approx(1 / 3)] * 3] * 4
    torch.nn.init.normal_(router.gate.weight)
    assert router(states).shape == (4, 3) and router(states).sum(-1).tolist() == pytest.approx([1] * 4)
    assert torch.equal(router(states), router(states[:, 0])) and not torch.equal(router(states), router(states[:, 1]))


def test_the_router_weighs_rows_as_the_tasks_they_look_like():
    objective = make('learned', weights=[1.0, 0.0, 4.0])
    torch.manual_seed(0)
    torch.nn.init.normal_(objective.module.gate.weight)
    hidden = torch.randn(3, 8, requires_grad=True)
    loss, _, model = run(objective, ['qa', 'mt', None], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], hidden)
    p = objective.module(torch.nn.functional.normalize(hidden.detach(), dim=-1)).detach()
    counts = p @ torch.tensor([1.0, 0.0, 4.0])
    own_loss = -2 * (p[0, 0].log() + p[1, 2].log())  # once for each of the two tokens; the third row names no task
    assert loss.sum.item() == pytest.approx((counts * torch.tensor([3.0, 7.0, 11.0])).sum().item() + own_loss.item(), rel=1e-5)
    loss.sum.backward()
    assert model.losses.grad.tolist() == pytest.approx(counts.repeat_interleave(2).tolist())
    assert hidden.grad is None, 'the router must not shape the model'
    target = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])  # the gradient of a cross entropy, and nothing of the weighing
    assert objective.module.gate.bias.grad.tolist() == pytest.approx((2 * (p[:2] - target)).sum(0).tolist(), abs=1e-5)
    assert loss.metrics['router_acc'].numel() == 2 and set(loss.metrics) >= {'loss_qa', 'loss_mt', 'weight_mt'}


def test_a_batch_of_fillers_keeps_the_graph():
    for routing in ('fixed', 'uncertainty', 'learned'):
        objective = make(routing)
        batch = objective.collate([Sample([5, 5], [-100, -100], channel='qa')])
        loss = objective.loss(batch, Actors(Model([], torch.zeros(1, 8))))
        loss.sum.backward()
        assert loss.sum.item() == 0
        assert objective.module is None or all(p.grad is not None and not p.grad.any() for p in objective.module.parameters())


class Template:
    def encode_batch(self, talks):
        return [[Sample([1, 2], [-100, 2], channel=talk.channel)] for talk in talks]


def test_rows_name_their_task():
    talk = [{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': 'a'}]
    rows = [Conversation(talk, channel='qa', source='f:1'), Conversation(talk, columns={'task': 'mt'}, source='f:2'),
            Conversation(talk, columns={'mood': 'good'}, source='f:3'), Conversation(talk, channel='sumn', source='f:4')]  # fmt: skip
    found = make().encode_batch(rows, Template())
    assert [item if isinstance(item, RowError) else item[0].channel for item in found[:2]] == ['qa', 'mt']
    assert str(found[2]) == 'f:3: the row has messages, mood, but no task; it is read from channel or task (known: qa, sum, mt)'
    assert str(found[3]) == "f:4: unknown task 'sumn'; did you mean 'sum'?"
    assert make('learned').encode_batch(rows, Template())[2][0].channel is None  # the router knows what it looks like
    assert make().fingerprint != make('learned').fingerprint


@pytest.mark.parametrize(('more', 'what'), [
    (dict(weights=[1.0, 0.5]), r'--task_weights has 2 values for 3 tasks \(qa, sum, mt\); give one for each, in this order'),
    (dict(weights=[0.0, 0.0, 0.0]), 'all 0'),
    (dict(tasks=[]), 'no row names a task; give rows a column task, task_templates'),
])  # fmt: skip
def test_mistakes_are_one_line(more, what):
    with pytest.raises(SwiftError, match=what) as wrong:
        make(**more)
    assert '\n' not in str(wrong.value)


# ---- whole runs on the shipped data


def settings(tiny_dir, folder, **more):
    return {
        'model': tiny_dir, 'dataset': ['multi_task#48'], 'dataset_dir': str(DATA), 'task_type': 'multi_task', 'max_steps': 4, 'save_steps': 2,
        'per_device_train_batch_size': 6, 'learning_rate': 1e-3, 'logging_steps': 1, 'report_to': 'none', 'output_dir': str(folder),
        'add_version': False, **more,
    }  # fmt: skip


def logged(result):
    clock = ('tokens_per_second', 'train_runtime', 'train_samples_per_second', 'train_steps_per_second')
    return [{name: value for name, value in line.items() if name not in clock} for line in result['log_history']]


def weights_of(checkpoint):
    return {f'{path.name}:{name}': value for path in sorted(Path(checkpoint).glob('*.safetensors')) for name, value in load_file(path).items()}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path_factory.getbasetemp() / 'multi_task_cache'))


def test_three_templates_train_and_every_task_has_its_loss(tiny_dir, tmp_path):
    result = sft_main(settings(tiny_dir, tmp_path, task_weights=[1.0, 0.8, 0.8], max_steps=2, per_device_train_batch_size=16,
                               val_dataset=['multi_task_heldout#12']))  # fmt: skip
    names = ('qa', 'summarization', 'translation')
    for line in result['log_history'][:2]:
        assert [line[f'weight_{name}'] for name in names] == pytest.approx([1.0, 0.8, 0.8])
        assert {f'loss_{name}' for name in names} | {f'token_acc_{name}' for name in names} <= set(line)
        assert min(line[f'loss_{name}'] for name in names) * 0.8 < line['loss'] < max(line[f'loss_{name}'] for name in names)
    assert json.loads((tmp_path / 'args.json').read_text())['tasks'] == list(names)


@pytest.mark.parametrize(('tuner', 'routing', 'more'), [
    ('lora', 'uncertainty', {}),
    ('full', 'learned', {'packing': True, 'max_length': 256, 'per_device_train_batch_size': 2}),
    ('full', 'uncertainty', {'streaming': True, 'optimizer': 'muon'}),
])  # fmt: skip
def test_a_resumed_run_is_the_same_run(tiny_dir, tmp_path, tuner, routing, more):
    run = dict(tuner_type=tuner, routing_strategy=routing, task_weights=[1.0, 0.8, 0.8], **more)
    whole = sft_main(settings(tiny_dir, tmp_path / 'whole', **run))
    first = str(shutil.copytree(tmp_path / 'whole', tmp_path / 'half') / 'checkpoint-2')
    again = sft_main(settings(tiny_dir, tmp_path / 'half', **run, resume_from_checkpoint=first))
    ours, theirs = weights_of(whole['last_model_checkpoint']), weights_of(again['last_model_checkpoint'])
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert logged(again)[:4] == logged(whole)[:4]
    mine = load_file(Path(first) / own.FILE)
    assert any(value.any() for value in mine.values()), 'they have not learned'
    assert not any(name.startswith(('model', 'adapter')) and '.objective.' in name.replace(':', '.') for name in ours)


def test_a_checkpoint_loads_in_plain_libraries_and_own_parameters_learn_at_their_rate(tiny_dir, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    result = sft_main(settings(tiny_dir, tmp_path / 'full', tuner_type='full', routing_strategy='uncertainty', max_steps=2))
    _, info = AutoModelForCausalLM.from_pretrained(result['last_model_checkpoint'], output_loading_info=True)
    assert not info['unexpected_keys'] and not info['missing_keys']
    moved = load_file(Path(result['last_model_checkpoint']) / own.FILE)['log_vars']
    assert moved.abs().max() == pytest.approx(0.01 + 0.005, rel=0.2)  # Adam: one learning rate a step, here falling linearly
    adapter = sft_main(settings(tiny_dir, tmp_path / 'lora', routing_strategy='learned', max_steps=2))
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_dir), adapter['last_model_checkpoint'])
    assert not any('objective' in name for name in load_file(Path(adapter['last_model_checkpoint']) / 'adapter_model.safetensors'))


def test_own_parameters_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match='has no objective.safetensors'):
        own.load_own(MultiTaskLoss(3), str(tmp_path))
    own.save_own(MultiTaskLoss(2), str(tmp_path))
    with pytest.raises(CheckpointError, match=r"holds \{'log_vars': \[2\]\}, this run has \{'log_vars': \[3\]\}"):
        own.load_own(MultiTaskLoss(3), str(tmp_path))


def test_shipped_rows_read_as_their_templates_say():
    found = DatasetLoader.load('multi_task', dataset_dir=str(DATA))
    talks = {found[index].channel: found[index] for index in range(40)}
    assert set(talks) == {'qa', 'summarization', 'translation'}
    assert talks['translation'].messages[0]['content'] == 'You translate to Chinese.'
    assert talks['summarization'].messages[1]['content'].startswith('Text: ') and talks['qa'].messages[2]['role'] == 'assistant'
