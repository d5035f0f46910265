"""Whole short trainings: what must not depend on how the batch is cut, and what a user sees."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers

from swift.core.errors import ArgumentsError, SwiftError
from swift.core.types import Actors
from swift.dataset.loader import make_loader
from swift.objectives import get_objective
from swift.trainers.checkpoint import CheckpointWriter
from swift.trainers.factory import build_trainer
from swift.trainers.forward import ModelActor, Plan
from swift.trainers.hf_args import training_arguments
from swift.trainers.selfcheck import plan
from swift.trainers.trainer import Trainer
from tests.helpers.tiny import build_model
from tests.helpers.training import Listed, ListLoader, log_lines, make_trainer, random_samples, train_args
from tests.trainers import two_processes


def curve(samples, **settings):
    trainer = make_trainer(samples, **settings)
    trainer.train()
    return torch.tensor(log_lines(trainer, 'loss', 'grad_norm', 'token_acc')), trainer


@pytest.fixture(scope='module')
def reference():
    return curve(random_samples(24), batch_size=8, num_train_epochs=2)[0]


@pytest.mark.parametrize(
    'cut',
    [
        dict(batch_size=1, gradient_accumulation_steps=8),
        dict(batch_size=2, gradient_accumulation_steps=4),
        dict(batch_size=8, padded=True),
        dict(batch_size=1, gradient_accumulation_steps=8, padded=True),
        dict(batch_size=4, gradient_accumulation_steps=2, gradient_checkpointing=True),
    ],
    ids=str,
)
def test_loss_and_gradient_norm_do_not_depend_on_the_cut(reference, cut):
    lines, _ = curve(random_samples(24), num_train_epochs=2, **cut)
    assert len(lines) == 6
    torch.testing.assert_close(lines, reference, rtol=1e-5, atol=1e-6)


def test_an_incomplete_last_step_is_normalised_by_what_it_has():
    """20 samples, 8 a step: the third step has 4."""
    whole, _ = curve(random_samples(20), batch_size=8)
    cut, _ = curve(random_samples(20), batch_size=1, gradient_accumulation_steps=8)
    assert len(whole) == 3
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-6)


def test_first_step_is_the_mean_over_tokens_and_sgd_follows_its_gradient():
    samples = random_samples(4)
    model = build_model()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    total, count = torch.zeros(()), 0
    reference = build_model()
    for sample in samples:
        logits = reference(input_ids=torch.tensor([sample.input_ids]), use_cache=False).logits[0]
        labels = torch.tensor(sample.labels[1:])
        total = total + F.cross_entropy(logits[:-1], labels, reduction='sum')
        count += int((labels != -100).sum())
    (total / count).backward()
    trainer = make_trainer(samples, model=model, batch_size=2, gradient_accumulation_steps=2, optim='sgd', learning_rate=0.1,
                           max_grad_norm=0.0, weight_decay=0.0, lr_scheduler_type='constant')  # fmt: skip
    trainer.train()
    (loss, norm), *_ = log_lines(trainer, 'loss', 'grad_norm')
    assert loss == pytest.approx((total / count).item(), rel=1e-6)
    grads = [p.grad for p in reference.parameters()]
    assert norm == pytest.approx(torch.cat([g.reshape(-1) for g in grads]).norm().item(), rel=1e-5)
    for (name, p), grad in zip(model.named_parameters(), grads, strict=True):
        torch.testing.assert_close(p.detach(), start[name] - 0.1 * grad, rtol=1e-5, atol=1e-6)


def test_evaluation_is_the_mean_over_tokens_whatever_the_batches():
    samples, held = random_samples(4), random_samples(7, seed=9)
    trainer = make_trainer(samples, eval_samples=held, eval_strategy='epoch')
    trainer.train()
    line = next(line for line in trainer.state.log_history if 'eval_loss' in line)
    objective = get_objective('sft', train_args())
    with torch.no_grad():
        trainer.model.eval()
        batch = objective.collate(held)
        loss = objective.loss(batch, Actors(ModelActor(trainer.model, trainer.plan)))
    assert line['eval_loss'] == pytest.approx(loss.sum.item() / objective.weight(batch), rel=1e-5)
    assert line['eval_token_acc'] == pytest.approx(loss.metrics['token_acc'].mean().item())


def test_an_evaluation_of_nothing_is_told_before_it_is_measured(monkeypatch):
    trainer = make_trainer(random_samples(4), eval_samples=random_samples(2))
    monkeypatch.setattr(trainer.objective, 'measure', lambda outputs: {'figure': outputs['scores'].mean().item()})
    with pytest.raises(SwiftError, match='nothing in the evaluation data'):
        trainer.evaluate(ListLoader([], 1, trainer.objective.collate))


def test_two_processes_train_as_one(tmp_path):
    """2 × batch 4 = 1 × batch 8, flat and padded, with an uneven tail; real processes over gloo."""
    script = Path(__file__).with_name('two_processes.py')
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--master_port', '29541', str(script)]
    done = subprocess.run([*command, str(tmp_path / 'two')], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    two = torch.load(tmp_path / 'two')
    one = two_processes.results()
    assert one.keys() == two.keys() and len(one) == 2
    for name in one:
        torch.testing.assert_close(two[name]['lines'], one[name]['lines'], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(two[name]['eval'], one[name]['eval'], rtol=1e-5, atol=1e-6)
        gap = (two[name]['weights'] - one[name]['weights']).abs()  # Adam takes a full step on a gradient of rounding noise
        assert gap.max() < 2e-4 and gap.mean() < 1e-7


def test_channel_losses_are_logged_as_means_over_the_step():
    samples = random_samples(8)
    trainer = make_trainer(samples, batch_size=2, gradient_accumulation_steps=4, enable_channel_loss=True)
    objective = get_objective('sft', train_args(enable_channel_loss=True))
    with torch.no_grad():
        loss = objective.loss(objective.collate(samples), Actors(ModelActor(trainer.model, trainer.plan)))
    expected = {name: values.mean().item() for name, values in loss.metrics.items()}
    trainer.train()
    (line,) = [line for line in trainer.state.log_history if 'loss' in line]
    assert {name: line[name] for name in ('loss_a', 'loss_b', 'token_acc')} == pytest.approx(expected, rel=1e-5)
    assert line['tokens_per_second'] > 0


def test_a_loss_that_is_no_number_stops_and_names_the_rows():
    samples = random_samples(6)
    bad = samples[3].input_ids[0] = 599  # this token's embedding is not a number
    model = build_model(tie_word_embeddings=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[bad] = float('nan')
    for sample in samples:
        sample.input_ids = [t if t != bad or sample is samples[3] else 5 for t in sample.input_ids]
    trainer = make_trainer(samples[:2] + samples[2:], model=model, batch_size=1, gradient_accumulation_steps=2)
    with pytest.raises(SwiftError, match=r'step 2; the micro-batch holds random.jsonl:4;'):
        trainer.train()
    assert trainer.state.global_step == 1
    assert all(p.isfinite().all() for n, p in model.named_parameters() if 'embed' not in n), 'the bad step was not taken'


def test_resume_in_the_middle_of_an_epoch_is_the_uninterrupted_run(tmp_path):
    """With dropout, shuffling, accumulation that doesn't divide the epoch, and a log line every second step."""

    batch_size = 2

    def run(folder, steps, resume=None):
        model = build_model(attention_dropout=0.2)
        args = train_args(num_train_epochs=3, gradient_accumulation_steps=2, logging_steps=2,
                          per_device_train_batch_size=batch_size)  # fmt: skip
        objective = get_objective('sft', args)
        samples = Listed(random_samples(5 * batch_size))
        loader = make_loader(samples, objective.collate, batch_size=batch_size, seed=3)
        trainer = build_trainer(model, args, objective, loader, run_dir=str(folder), plan=plan(model, samples),
                                writer=CheckpointWriter(str(folder)), callbacks=[StopAt(steps)])  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return model, log_lines(trainer, 'loss', 'grad_norm', 'learning_rate', 'epoch')

    model, lines = run(tmp_path / 'straight', 99)
    for stop in (2, 3, 5):
        run(tmp_path / f'{stop}', stop)
        again, rest = run(tmp_path / f'{stop}', 99, resume=str(tmp_path / f'{stop}' / f'checkpoint-{stop}'))
        for a, b in zip(model.parameters(), again.parameters(), strict=True):
            assert torch.equal(a, b), f'stopped at {stop}'
        assert rest == lines


class StopAt(transformers.TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = control.should_training_stop = state.global_step >= self.step
        return control


class Stream:
    """A loader that doesn't know its length: epochs of 3 micro-batches."""

    def __init__(self, samples, collate):
        self.samples, self.collate, self.epoch = samples, collate, 0

    def __iter__(self):
        for start in (0, 2, 4):
            yield self.collate(self.samples[start : start + 2])
        self.epoch += 1


def test_a_stream_is_read_on_across_its_epochs():
    """5 steps of 2 micro-batches over epochs of 3: no micro-batch is lost or counted twice at a border."""
    samples = random_samples(6)
    model = build_model()
    args = train_args(max_steps=5, gradient_accumulation_steps=2, learning_rate=1e-3)
    objective = get_objective('sft', args)
    stream = build_trainer(model, args, objective, Stream(samples, objective.collate), run_dir='unused', plan=plan(model, samples))
    stream.train()
    again = make_trainer((samples * 4)[:20], batch_size=2, gradient_accumulation_steps=2, learning_rate=1e-3)
    again.train()
    assert log_lines(stream, 'loss', 'grad_norm') == log_lines(again, 'loss', 'grad_norm')


def test_neftune_noise_has_the_size_of_the_paper_and_only_in_training():
    model, samples = build_model(), random_samples(3, shortest=9)
    objective = get_objective('sft', train_args())
    batch = objective.collate(samples)
    seen = []
    model.model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    quiet, noisy = ModelActor(model, Plan()), ModelActor(model, Plan(), noise=5.0)
    model.train()
    for actor in (quiet, noisy):
        actor.answer_logps(batch)
    model.eval()
    noisy.answer_logps(batch)
    assert torch.equal(seen[0], seen[2])
    start = 0
    for size in batch.lengths.tolist():
        noise = (seen[1] - seen[0])[0, start : start + size]
        bound = 5.0 / (size * 64) ** 0.5
        assert 0.95 * bound < noise.abs().max() <= bound
        start += size


def test_a_trainer_of_the_user_with_the_short_signature():
    """As the documents show it: compute_loss(model, inputs, return_outputs=False), delegating or not."""

    class Twice(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False):
            return 2 * super().compute_loss(model, inputs, return_outputs)

    class Own(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False):
            return model(**inputs).loss

    samples = random_samples(8)
    plain, _ = curve(samples, batch_size=2, gradient_accumulation_steps=4, lr_scheduler_type='constant')
    for chosen, factor in ((Twice, 2.0), (Own, 1.0)):
        trainer = make_trainer(samples, batch_size=2, gradient_accumulation_steps=4, parts={'trainer_class': chosen})
        trainer.train()
        (loss,), *_ = log_lines(trainer, 'loss')
        # `Own` averages means of micro-batches, so it is only near
        assert loss == pytest.approx(factor * plain[0, 0].item(), rel=1e-5 if factor == 2 else 2e-2)


def test_without_objective_it_is_transformers_trainer(tmp_path):
    """`Trainer(model=…, args=TrainingArguments, train_dataset=rows)` with a loss object called (model, inputs, return_outputs)."""
    calls = []

    class Custom(Trainer):
        def __init__(self, *args, penalty=None, **kwargs):
            super().__init__(*args, **kwargs)
            self.penalty = penalty

        def compute_loss(self, model, inputs, return_outputs=False):
            calls.append(sorted(inputs))
            outputs = model(**inputs)
            loss = outputs.loss + self.penalty
            return (loss, outputs) if return_outputs else loss

    rows = [{'input_ids': s.input_ids, 'labels': s.labels, 'attention_mask': [1] * len(s)} for s in random_samples(4)]
    args = transformers.TrainingArguments(str(tmp_path), max_steps=2, per_device_train_batch_size=2, report_to='none',
                                          logging_steps=1, save_strategy='no', use_cpu=True, disable_tqdm=True)  # fmt: skip
    trainer = Custom(model=build_model(), args=args, train_dataset=rows, penalty=10.0,
                     data_collator=transformers.DataCollatorForSeq2Seq(tokenizer()))  # fmt: skip
    trainer.train()
    assert calls and calls[0] == ['attention_mask', 'input_ids', 'labels']
    assert trainer.state.log_history[0]['loss'] > 15


def tokenizer():
    from tests.helpers.tiny import build_tokenizer

    return build_tokenizer()


def test_arguments_reach_transformers(tmp_path):
    args = train_args(weight_decay=0.3, warmup_ratio=0.1, lr_scheduler_type='cosine', gradient_checkpointing=True,
                      training_args={'adam_epsilon': 1e-5}, label_smoothing_factor=0.2)  # fmt: skip
    made = training_arguments(args, str(tmp_path), seed=7)
    assert (made.weight_decay, made.warmup_steps, made.adam_epsilon, made.seed) == (0.3, 0.1, 1e-5, 7)
    assert made.lr_scheduler_type == 'cosine' and made.activation_checkpointing
    assert made.activation_checkpointing_kwargs['use_reentrant'] is False
    assert made.label_smoothing_factor == 0, 'smoothing is the objective\'s and must not happen twice'
    assert made.report_to == [] and not made.bf16 and not made.fp16


def test_wrong_pass_through_arguments_are_all_named(tmp_path):
    with pytest.raises(ArgumentsError) as caught:
        training_arguments(train_args(training_args={'weight_decai': 1, 'neftune_noise_alpha': 3}), str(tmp_path))
    assert len(caught.value.mistakes) == 2 and "did you mean 'weight_decay'" in caught.value.mistakes[0]


def test_model_config_is_left_as_it_was(tmp_path):
    """Training must not write its own needs (no cache, our attention) into what is saved."""
    model = build_model()
    trainer = make_trainer(random_samples(4), model=model)
    trainer.train()
    model.save_pretrained(tmp_path)
    saved = transformers.AutoConfig.from_pretrained(tmp_path)
    assert saved.use_cache is True and 'swift' not in (tmp_path / 'config.json').read_text()


def test_evaluation_sets_by_name():
    samples = random_samples(4)
    trainer = make_trainer(samples)
    collate = get_objective('sft', train_args()).collate
    named = {'easy': ListLoader(random_samples(2, seed=1), 1, collate), 'hard': ListLoader(random_samples(3, seed=2), 2, collate)}
    metrics = trainer.evaluate(named)
    assert {'eval_easy_loss', 'eval_hard_loss', 'eval_easy_token_acc'} <= metrics.keys()
