"""Whole trainings from Python: what is returned, what is written, what is left alone."""

import json
import os
import threading

import pytest
import torch
from safetensors.torch import load_file

from swift import PretrainArguments, SftArguments, Swift, pretrain_main, sft_main
from swift.core.errors import ArgumentsError, CheckpointError, SwiftError
from tests.pipelines.conftest import write_rows

KEYS = {'last_model_checkpoint', 'best_model_checkpoint', 'best_metric', 'global_step', 'log_history', 'eval_loss'}


def losses(result) -> list[float]:
    return [record['loss'] for record in result['log_history'] if 'loss' in record]


def test_lora_run_returns_and_writes_everything(quick, tiny_dir, chat_file):
    before = load_file(os.path.join(tiny_dir, 'model.safetensors'))
    result = Swift.sft(**{**quick, 'max_steps': 8, 'split_dataset_ratio': 0.25, 'save_steps': 4})
    assert result.keys() >= KEYS
    assert result['global_step'] == 8 and len(losses(result)) == 8
    assert losses(result)[-1] < losses(result)[0] - 0.3
    assert result['eval_loss'] < losses(result)[0]
    run = result['run_dir']
    assert sorted(name for name in os.listdir(run) if name.startswith('checkpoint')) == ['checkpoint-4', 'checkpoint-8']
    assert result['last_model_checkpoint'] == os.path.join(run, 'checkpoint-8')
    assert {'args.json', 'logging.jsonl', 'val_dataset.jsonl', 'images'} <= set(os.listdir(run))
    held_out = [json.loads(line) for line in open(os.path.join(run, 'val_dataset.jsonl'))]
    answers = {row.get('response') or row['messages'][-1]['content'] for row in map(json.loads, open(chat_file))}
    assert len(held_out) == 6 and {row['messages'][-1]['content'] for row in held_out} <= answers
    after = load_file(os.path.join(tiny_dir, 'model.safetensors'))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_adapter_loads_with_plain_peft_and_gives_the_same_logits(quick, tiny_dir):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from swift.tuners import load_adapter

    checkpoint = Swift.sft(**quick)['last_model_checkpoint']
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_dir), checkpoint).eval()(ids).logits
        ours = load_adapter(AutoModelForCausalLM.from_pretrained(tiny_dir), checkpoint).eval()(ids).logits
        base = AutoModelForCausalLM.from_pretrained(tiny_dir).eval()(ids).logits
    assert torch.equal(plain, ours)
    assert (plain - base).abs().max() > 1e-3


def test_full_run_loads_with_plain_transformers(quick, tiny_dir):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    checkpoint = Swift.sft(**{**quick, 'tuner_type': 'full', 'learning_rate': 1e-3})['last_model_checkpoint']
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    base = AutoModelForCausalLM.from_pretrained(tiny_dir)
    changed = [name for (name, a), b in zip(model.named_parameters(), base.parameters(), strict=True) if not torch.equal(a, b)]
    assert len(changed) == len(list(base.parameters()))
    assert AutoTokenizer.from_pretrained(checkpoint).chat_template == AutoTokenizer.from_pretrained(tiny_dir).chat_template


def test_arguments_object_list_and_mapping_train_alike(quick):
    words = [word for name, value in quick.items() for word in (f'--{name}', str(value))]
    results = [sft_main(words), sft_main(quick), sft_main(SftArguments(**{**quick, 'dataset': [quick['dataset']], 'report_to': ['none']}))]
    assert losses(results[0]) == losses(results[1]) == losses(results[2])
    assert len({result['run_dir'] for result in results}) == 3


def test_two_trainings_at_once(quick, tmp_path):
    results = {}

    def train(name):
        results[name] = Swift.sft(**{**quick, 'output_dir': str(tmp_path / name), 'val_dataset': quick['dataset']})

    threads = [threading.Thread(target=train, args=(name,)) for name in ('a', 'b')]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: result['global_step'] for name, result in results.items()} == {'a': 4, 'b': 4}
    assert losses(results['a']) == losses(results['b'])  # they take turns, so each is what it would be alone
    assert isinstance(results['a']['eval_loss'], float) and results['a']['eval_loss'] == results['b']['eval_loss']


def test_pretraining_trains_every_token_and_splits_long_rows(quick, text_file):
    from swift.arguments import parse_args
    from swift.pipelines.train import TrainingRun

    run = TrainingRun(parse_args('pt', {**quick, 'dataset': text_file, 'truncation_strategy': 'split', 'max_length': 16}), 'pt')
    samples = [run.data.train[index] for index in range(len(run.data.train))]
    assert len(samples) > 24 and max(len(sample) for sample in samples) == 16
    assert all(list(sample.labels) == list(sample.input_ids) for sample in samples)
    assert run.train()['global_step'] == 4


def test_split_is_for_plain_text_only(quick):
    with pytest.raises(SwiftError, match='split'):
        Swift.sft(**{**quick, 'truncation_strategy': 'split', 'max_length': 16})


def test_streaming_trains_the_steps_asked_for(quick, text_file):
    result = pretrain_main({**quick, 'dataset': text_file, 'streaming': True, 'packing': True, 'max_length': 256, 'max_steps': 5})
    assert result['global_step'] == 5 and losses(result)[-1] < losses(result)[0]


def test_resume_only_model_starts_anew_from_the_weights(quick):
    first = Swift.sft(**{**quick, 'max_steps': 8})
    second = Swift.sft(**{**quick, 'resume_from_checkpoint': first['last_model_checkpoint'], 'resume_only_model': True, 'learning_rate': 1e-3})
    assert second['global_step'] == 4 and second['log_history'][0]['learning_rate'] == pytest.approx(1e-3)
    assert losses(second)[0] < losses(first)[0] - 0.3


def test_adapter_is_trained_further(quick):
    first = Swift.sft(**{**quick, 'max_steps': 8})
    second = Swift.sft(**{**quick, 'adapters': first['last_model_checkpoint']})
    assert losses(second)[0] < losses(first)[0] - 0.3


def test_resume_with_another_rank_is_refused(quick):
    first = Swift.sft(**{**quick, 'save_steps': 2})
    checkpoint = os.path.join(first['run_dir'], 'checkpoint-2')
    with pytest.raises(CheckpointError, match='r 8 → 4'):
        Swift.sft(resume_from_checkpoint=checkpoint, lora_rank=4, output_dir=quick['output_dir'])


def test_resume_needs_neither_model_nor_dataset(quick):
    straight = Swift.sft(**{**quick, 'save_steps': 2})
    resumed = Swift.sft(resume_from_checkpoint=os.path.join(straight['run_dir'], 'checkpoint-2'), output_dir=quick['output_dir'])
    assert losses(resumed) == losses(straight)
    ours, theirs = (load_file(os.path.join(r['last_model_checkpoint'], 'adapter_model.safetensors')) for r in (straight, resumed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_generation_metrics_choose_the_best_checkpoint(quick):
    result = Swift.sft(**{**quick, 'val_dataset': quick['dataset'] + '#4', 'predict_with_generate': True, 'max_new_tokens': 8})
    evaluation = next(record for record in result['log_history'] if 'eval_rouge-l' in record)
    assert 0 <= evaluation['eval_rouge-l'] <= 100 and {'eval_bleu-4', 'eval_exact_match', 'eval_loss'} <= evaluation.keys()
    assert result['best_metric'] == evaluation['eval_rouge-l']
    answers = [json.loads(line) for line in open(os.path.join(result['run_dir'], 'predict.jsonl'))]
    assert len(answers) == 4 and {'response', 'labels', 'messages', 'step'} <= answers[0].keys()


def test_checkpoint_carries_the_named_template(quick):
    from transformers import AutoTokenizer

    checkpoint = Swift.sft(**{**quick, 'template': 'llama3', 'max_steps': 1})['last_model_checkpoint']
    text = AutoTokenizer.from_pretrained(checkpoint).apply_chat_template([{'role': 'user', 'content': 'hi'}], tokenize=False)
    assert '<|start_header_id|>user<|end_header_id|>' in text


def test_too_many_bad_rows_stop_the_run_naming_file_and_line(quick, tmp_path):
    rows = [{'query': 'a', 'response': 'b'}] + [{'messages': [{'role': 'user', 'content': 'no answer'}]}] * 3
    with pytest.raises(SwiftError, match=r'3 of 4 rows are bad.*broken\.jsonl:2'):
        Swift.sft(**{**quick, 'dataset': write_rows(tmp_path / 'broken.jsonl', rows)})


def test_rows_that_are_only_too_long_are_left_out_and_counted(quick, tmp_path, capfd):
    rows = [{'query': 'a', 'response': 'b'}] * 3 + [{'query': 'word ' * 200, 'response': 'b'}] * 3
    settings = {**quick, 'dataset': write_rows(tmp_path / 'long.jsonl', rows), 'max_length': 64}
    for _ in range(2):  # the second time the tokens come from the cache
        assert Swift.sft(**settings)['global_step'] == 4
        assert '3 of 6 rows are longer than --max_length' in capfd.readouterr().err
    assert Swift.sft(**{**settings, 'truncation_strategy': 'left'})['global_step'] == 4
    assert '6 samples' in capfd.readouterr().err
    with pytest.raises(SwiftError, match='no trained token is left within max_length 64'):
        Swift.sft(**{**settings, 'truncation_strategy': 'right'})


def test_pretrain_defaults():
    assert PretrainArguments().use_chat_template is False


def test_mistakes_come_before_anything_is_loaded(quick):
    with pytest.raises(ArgumentsError) as caught:
        Swift.sft(**{**quick, 'lora_rnk': 4, 'num_train_epochs': 'many', 'lr_scheduler_type': 'cosin'})
    assert len(caught.value.mistakes) == 3
    with pytest.raises(SwiftError, match="unknown tuner_type 'ful'; did you mean 'full'"):
        Swift.sft(**{**quick, 'dataset': 'nowhere.jsonl', 'tuner_type': 'ful'})


def test_missing_packages_are_named_before_the_data_is_read(quick):
    with pytest.raises(SwiftError, match='flash-attn.*not installed'):
        Swift.sft(**{**quick, 'dataset': 'nowhere.jsonl', 'attn_impl': 'flash_attn'})
    with pytest.raises(SwiftError, match='trackio.*not installed'):
        Swift.sft(**{**quick, 'dataset': 'nowhere.jsonl', 'report_to': 'trackio'})


def test_weight_files_are_no_larger_than_asked(quick):
    from transformers import AutoModelForCausalLM

    settings = {**quick, 'max_steps': 1, 'max_shard_size': '200KB'}
    checkpoint = Swift.sft(**settings, tuner_type='full')['last_model_checkpoint']
    files = [name for name in os.listdir(checkpoint) if name.endswith('.safetensors')]
    assert len(files) > 1 and all(os.path.getsize(os.path.join(checkpoint, name)) < 220_000 for name in files)
    assert AutoModelForCausalLM.from_pretrained(checkpoint).num_parameters() > 0
    with pytest.raises(ArgumentsError, match='max_shard_size has no effect with --tuner_type lora'):
        Swift.sft(**settings)
