"""Trainers for a model in hand: the command's own training, and clear words where something does not fit."""

import json
import os

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from swift import EmbeddingTrainer, LoRAConfig, RerankerTrainer, Swift, TrainerCallback, infer_main, rlhf_main, sft_main
from swift.core.errors import ArgumentsError, SwiftError
from swift.rlhf_trainers import (
    CPOTrainer,
    DPOConfig,
    DPOTrainer,
    KTOTrainer,
    ORPOTrainer,
    RewardConfig,
    RewardTrainer,
    SimPOTrainer,
)
from tests.helpers.methods import CASES
from tests.pipelines.conftest import write_rows

FLAGS = dict(max_steps=3, learning_rate=1e-3, per_device_train_batch_size=2, report_to='none', logging_steps=1, max_length=256)


@pytest.fixture
def model(tiny_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_dir)


@pytest.fixture(scope='module')
def tokenizer(tiny_dir):
    return AutoTokenizer.from_pretrained(tiny_dir)


def losses(history):
    return [record['loss'] for record in history if 'loss' in record]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    'name, cls',
    [('dpo', DPOTrainer), ('kto', KTOTrainer), slow('orpo', ORPOTrainer), slow('cpo', CPOTrainer), slow('simpo', SimPOTrainer)],
)
def test_the_trainer_trains_as_the_command_does(name, cls, model, tokenizer, tiny_dir, tmp_path):
    rows = CASES[name].rows(6)
    path = write_rows(tmp_path / 'rows.jsonl', rows)
    flags = {**FLAGS, 'dataset_shuffle': False, 'train_dataloader_shuffle': False}
    trainer = cls(model=model, args={'output_dir': tmp_path / 'hand', **flags}, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    command = rlhf_main(dict(rlhf_type=name, model=tiny_dir, dataset=path, tuner_type='full', output_dir=str(tmp_path / 'out'), **flags))
    assert len(losses(command['log_history'])) == 3
    assert losses(trainer.state.log_history) == pytest.approx(losses(command['log_history']), rel=1e-6)
    assert {'args.json', 'logging.jsonl', 'checkpoint-3'} <= set(os.listdir(trainer.run_dir))


def test_a_config_gives_flags_and_an_evaluation(model, tokenizer, tiny_dir, tmp_path):
    rows = CASES['dpo'].rows(6)
    path = write_rows(tmp_path / 'rows.jsonl', rows)
    flags = {**FLAGS, 'dataset_shuffle': False, 'train_dataloader_shuffle': False, 'loss_type': ['hinge', 'sft'], 'beta': 0.3}
    args = DPOConfig(str(tmp_path / 'hand'), **flags)
    assert args.beta == 0.3 and args.rlhf_type == 'dpo'
    trainer = DPOTrainer(model=model, args=args, train_dataset=rows, eval_dataset=rows[:2], processing_class=tokenizer)
    trainer.train()
    command = rlhf_main(dict(model=tiny_dir, dataset=path, tuner_type='full', output_dir=str(tmp_path / 'out'), **flags))
    assert losses(trainer.state.log_history) == pytest.approx(losses(command['log_history']), rel=1e-6)
    assert 'eval_rewards/margins' in trainer.evaluate()


def test_a_reference_in_hand_counts(model, tokenizer, tiny_dir, tmp_path):
    rows = CASES['dpo'].rows(4)
    other = AutoModelForCausalLM.from_pretrained(tiny_dir)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    flags = {**FLAGS, 'max_steps': 1}
    own = DPOTrainer(model, args={'output_dir': tmp_path / 'a', **flags}, train_dataset=rows, processing_class=tokenizer)
    own.train()
    compared = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_dir), other, {'output_dir': tmp_path / 'b', **flags}, rows, processing_class=tokenizer
    )
    before = {name: value.clone() for name, value in other.state_dict().items()}
    compared.train()
    assert losses(own.state.log_history)[0] == pytest.approx(0.6931, abs=1e-4)
    assert abs(losses(compared.state.log_history)[0] - 0.6931) > 1e-3
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_an_adapter_learns_is_saved_and_resumed(model, tokenizer, tmp_path):
    rows = CASES['dpo'].rows(6)
    base = {name: value.clone() for name, value in model.state_dict().items()}

    class Note(TrainerCallback):
        seen = 0

        def on_step_end(self, args, state, control, **kwargs):
            self.seen += 1

    note = Note()
    config = DPOConfig(str(tmp_path / 'hand'), save_steps=1, **FLAGS)
    trainer = DPOTrainer(model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=LoRAConfig(r=4, lora_dropout=0), callbacks=[note])  # fmt: skip
    trainer.train()
    assert note.seen == 3 and losses(trainer.state.log_history)[-1] < 0.6931
    assert all(torch.equal(base[name.replace('.base_layer', '')], value) for name, value in trainer.model.get_base_model().state_dict().items() if 'lora_' not in name)  # fmt: skip
    checkpoint = os.path.join(trainer.run_dir, 'checkpoint-3')
    assert json.load(open(os.path.join(checkpoint, 'args.json')))['rlhf_type'] == 'dpo'
    said = infer_main(dict(adapters=checkpoint, val_dataset=write_rows(tmp_path / 'ask.jsonl', [{'query': 'hello'}]), max_new_tokens=2))
    assert said[0]['finish_reason'] in ('length', 'stop')
    again = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(model.config._name_or_path), args=DPOConfig(str(tmp_path / 'again'), **FLAGS),
        train_dataset=rows, processing_class=tokenizer, peft_config=LoRAConfig(r=4, lora_dropout=0),
    )  # fmt: skip
    again.train(resume_from_checkpoint=os.path.join(trainer.run_dir, 'checkpoint-2'))
    assert losses(again.state.log_history)[-1] == pytest.approx(losses(trainer.state.log_history)[-1], rel=1e-6)


def test_an_adapter_taken_out_of_the_base_is_compared_with_its_start(model, tokenizer, tiny_dir, tmp_path):
    """And its checkpoint is an adapter of the base as it was."""
    config = LoRAConfig(r=4, lora_dropout=0, init_lora_weights='pissa', target_modules='all-linear')
    flags = {'output_dir': tmp_path, **FLAGS, 'save_steps': 3}
    trainer = DPOTrainer(model, args=flags, train_dataset=CASES['dpo'].rows(6), processing_class=tokenizer, peft_config=config)
    trainer.train()
    assert losses(trainer.state.log_history)[0] == pytest.approx(0.6931, abs=1e-4)
    stored = Swift.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_dir), os.path.join(trainer.run_dir, 'checkpoint-3'))
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(stored.eval()(ids).logits, trainer.model.eval()(ids).logits, rtol=1e-4, atol=1e-4)


def test_reward_embedding_and_reranker(tiny_dir, tokenizer, tmp_path):
    scored = AutoModelForSequenceClassification.from_pretrained(tiny_dir, num_labels=1)
    scored.config.pad_token_id = tokenizer.pad_token_id
    flags = {**FLAGS, 'max_steps': 2}
    trainer = RewardTrainer(scored, args=RewardConfig(str(tmp_path / 'rm'), **flags), train_dataset=CASES['rm'].rows(6), processing_class=tokenizer)
    trainer.train()
    loaded = AutoModelForSequenceClassification.from_pretrained(os.path.join(trainer.run_dir, 'checkpoint-2'))
    assert loaded.config.num_labels == 1
    for cls, name, model in (
        (RerankerTrainer, 'reranker', AutoModelForSequenceClassification.from_pretrained(tiny_dir, num_labels=1)),
        (EmbeddingTrainer, 'embedding', AutoModelForCausalLM.from_pretrained(tiny_dir)),
    ):
        path = write_rows(tmp_path / f'{name}.jsonl', CASES[name].rows(8))
        made = cls(model, args={'output_dir': tmp_path / name, **flags}, train_dataset=path, eval_dataset=path, processing_class=tokenizer)
        made.train()
        assert made.evaluate()['eval_mrr'] > 0
        order = {'dataset': path, 'task_type': name, 'tuner_type': 'full', 'model': tiny_dir, 'output_dir': str(tmp_path / f'{name}-out')}
        assert len(losses(made.state.log_history)) == len(losses(sft_main({**flags, **order})['log_history'])) == 2


@pytest.mark.parametrize(
    'flags, part',
    [
        ({'modle': 'x'}, "did you mean '--model'"),
        ({'model': 'x'}, 'model is no flag of DPOConfig: the model is handed to the trainer'),
        ({'lora_rank': 4}, 'wrap it with Swift.prepare_model'),
        ({'dataset': 'd'}, 'rows are handed to the trainer'),
        ({'ref_model': 'm'}, 'the reference is handed to the trainer'),
        ({'rlhf_type': 'kto'}, 'rlhf_type is settled by DPOConfig'),
        ({'simpo_gamma': 1}, 'has no effect with --rlhf_type dpo'),
        ({'loss_type': 'hing'}, "did you mean 'hinge'"),
    ],
)
def test_flags_that_do_not_fit(flags, part):
    with pytest.raises(ArgumentsError, match=part.replace('(', r'\(')):
        DPOConfig('out', **flags)


def test_what_is_missing_or_does_not_fit(model, tokenizer, tiny_dir, tmp_path):
    rows, args = CASES['dpo'].rows(2), {'output_dir': tmp_path / 'x', **FLAGS}
    headed = AutoModelForSequenceClassification.from_pretrained(tiny_dir, num_labels=3)
    for make, part in (
        (lambda: DPOTrainer(tiny_dir, args=args), 'take a loaded model'),
        (lambda: DPOTrainer(model, args=args, train_dataset=rows), 'processing_class=tokenizer'),
        (lambda: DPOTrainer(model, args=args, processing_class=tokenizer), 'train_dataset=rows'),
        (lambda: DPOTrainer(model, args=RewardConfig(), train_dataset=rows, processing_class=tokenizer), 'args must be a DPOConfig'),
        (lambda: ORPOTrainer(model, model, args, rows, processing_class=tokenizer), 'compares with no reference'),
        (lambda: RewardTrainer(headed, args=args, train_dataset=rows, processing_class=tokenizer), 'num_labels=1'),
        (lambda: DPOTrainer(headed, args=args, train_dataset=rows, processing_class=tokenizer), 'AutoModelForCausalLM'),
        (lambda: DPOTrainer(model, args=args, train_dataset=iter(rows), processing_class=tokenizer), r'rows with len\(\)'),
        (lambda: DPOTrainer(model, args=args, train_dataset=[{'query': 'a', 'response': 'b'}] * 4, processing_class=tokenizer), 'rejected'),
    ):
        with pytest.raises(SwiftError, match=part):
            make()


def test_swift_rlhf_is_the_command(tiny_dir, tmp_path):
    path = write_rows(tmp_path / 'rows.jsonl', CASES['dpo'].rows(4))
    result = Swift.rlhf(rlhf_type='dpo', model=tiny_dir, dataset=path, output_dir=str(tmp_path / 'out'), **{**FLAGS, 'max_steps': 1})
    assert result['global_step'] == 1 and losses(result['log_history'])[0] == pytest.approx(0.6931, abs=1e-4)
