"""The reference model through whole trainings: every way to have one, and what must not change by the way."""

import glob
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from swift.arguments import parse_args
from swift.core.errors import ArgumentsError, DatasetError, ModelError
from swift.core.types import Sample
from swift.dataset.values import Values, ValueWriter, WithValues, has_values
from swift.pipelines import reference, reference_logps, rlhf_main
from swift.pipelines.reference import keeps_copy
from swift.pipelines.reference_logps import identify
from tests.helpers.tiny import build_model, build_tokenizer, save_tiny
from tests.pipelines.conftest import write_rows


@pytest.fixture
def pairs(tmp_path) -> str:
    rows = [{'query': f'What is {i} plus one?', 'response': f'The answer is {i + 1}.', 'rejected_response': 'I am fine ' * (1 + i % 3)}
            for i in range(20)]  # fmt: skip
    return write_rows(tmp_path / 'pairs.jsonl', rows)


@pytest.fixture
def run(tiny_dir, pairs, tmp_path, monkeypatch):
    """A training; returns its result with its log lines under 'lines'. Each test has a cache of its own."""
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path / 'cache'))

    def train(**settings):
        lora = settings.get('tuner_type') != 'full'
        flags = dict(model=tiny_dir, dataset=pairs, output_dir=str(tmp_path / 'out'), max_steps=3, per_device_train_batch_size=4,
                     learning_rate=1e-2 if lora else 1e-3, report_to='none', logging_steps=1, save_strategy='no')  # fmt: skip
        result = rlhf_main({**flags, **({'lora_dropout': 0.0} if lora else {}), **settings})
        return {**result, 'lines': lines(result)}

    return train


def lines(result, *names):
    """What every training log line says about the loss and the rewards."""
    kept = names or ('loss', 'rewards/margins', 'rewards/chosen', 'grad_norm')
    return [[line[name] for name in kept if name in line] for line in result['log_history'] if 'loss' in line]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def same(one, two, tolerance=2e-5):
    return len(one) == len(two) and np.allclose(one, two, rtol=tolerance, atol=tolerance)


@pytest.fixture
def loads(monkeypatch):
    """Directories of the models that were loaded, in order."""
    from swift.model import load

    found, original = [], load.load_model

    def counted(args, **options):
        loaded = original(args, **options)
        found.append(loaded.info.model_dir)
        return loaded

    monkeypatch.setattr(load, 'load_model', counted)
    return found


# ---- which model it is


def test_lora_needs_no_second_model_and_one_changes_nothing(run, tiny_dir, loads):
    """The adapter switched off, a model of its own from the same folder, and PiSSA's put-together base are one reference."""
    alone = run()
    assert loads == [tiny_dir]
    assert alone['lines'][0][0] == pytest.approx(np.log(2), abs=1e-6) and alone['lines'][0][1] == pytest.approx(0, abs=1e-6)
    assert alone['lines'][-1][1] > 0.3
    assert same(run(ref_model=tiny_dir)['lines'], alone['lines'])
    assert loads == [tiny_dir] * 3


@pytest.mark.parametrize('start', ['pissa', slow('olora')])
def test_a_base_that_the_start_changed_is_not_the_reference(run, tiny_dir, start):
    """The residual base alone would be: margins would not start at 0."""
    alone = run(init_weights=start)
    assert abs(alone['lines'][0][1]) < 1e-4
    assert same(alone['lines'], run(init_weights=start, ref_model=tiny_dir)['lines'], 1e-3)


@pytest.mark.slow
def test_dropout_is_off_in_the_reference_only(run, tiny_dir):
    """With dropout on the policy, both kinds of reference still say the same, so the runs are the same."""
    assert same(run(lora_dropout=0.3, max_steps=2)['lines'], run(lora_dropout=0.3, max_steps=2, ref_model=tiny_dir)['lines'])


def test_full_training_has_a_frozen_copy(run, tiny_dir, loads):
    kept = []
    make = reference.Maker.actor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference.Maker, 'actor', lambda *args: kept.append(make(*args)) or kept[-1])
        result = run(tuner_type='full')
    assert loads == [tiny_dir] * 2
    stored = load_file(os.path.join(tiny_dir, 'model.safetensors'))
    for name, value in kept[0].module.named_parameters():
        assert torch.equal(value, stored[name]) and not value.requires_grad and value.grad is None
    assert not kept[0].module.training
    assert result['lines'][0][0] == pytest.approx(np.log(2), abs=1e-6) and result['lines'][-1][1] > 0.1


@pytest.mark.slow
@pytest.mark.parametrize('tuner', ['lora', 'full'])
def test_another_model_is_the_reference(run, tmp_path, tiny_dir, tuner):
    """A margin before the first step; `--ref_model` with the same weights has none."""
    other = save_tiny(tmp_path / 'other', seed=3)
    assert abs(run(tuner_type=tuner, ref_model=other, max_steps=1)['lines'][0][1]) > 1e-3


def test_going_on_with_an_adapter(run, tiny_dir, capfd):
    """The base is the reference unless the adapter is named; a second adapter on the model is what a model of its own is."""
    first = run(save_strategy='steps', save_steps=3)['last_model_checkpoint']
    capfd.readouterr()
    bare = run(adapters=first)
    assert f'give --ref_adapters {first}' in capfd.readouterr().err
    assert bare['lines'][0][1] > 0.3
    shared = run(adapters=first, ref_adapters=first, save_strategy='steps', save_steps=3)
    assert 'give --ref_adapters' not in capfd.readouterr().err
    assert shared['lines'][0][0] == pytest.approx(np.log(2), abs=1e-6)
    apart = run(adapters=first, ref_adapters=first, ref_model=tiny_dir, save_strategy='steps', save_steps=3)
    assert same(shared['lines'], apart['lines'])
    weights = [load_file(os.path.join(result['last_model_checkpoint'], 'adapter_model.safetensors')) for result in (shared, apart)]
    assert weights[0].keys() == weights[1].keys() and max((weights[0][name] - weights[1][name]).abs().max() for name in weights[0]) < 1e-5
    assert {name for name in os.listdir(shared['last_model_checkpoint'])} == {name for name in os.listdir(apart['last_model_checkpoint'])}
    changed = load_file(os.path.join(first, 'adapter_model.safetensors'))
    assert any(not torch.equal(changed[name], weights[0][name]) for name in changed)


@pytest.mark.slow
def test_a_fresh_adapter_against_a_trained_one(run, tiny_dir):
    """--ref_adapters on full training is a model of its own; on a fresh adapter a second one: the same margins at the start."""
    first = run(save_strategy='steps', save_steps=3)['last_model_checkpoint']
    margins = [run(ref_adapters=first, max_steps=1, tuner_type=tuner)['lines'][0][1] for tuner in ('lora', 'full')]
    assert margins[0] < -0.3 and margins[0] == pytest.approx(margins[1], abs=1e-5)


@pytest.mark.slow
def test_a_run_of_lora_is_a_reference_too(run):
    """--ref_model with an adapter's folder is its base with it on; a copy that follows is merged first. The same margins at the start."""
    first = run(save_strategy='steps', save_steps=3)['last_model_checkpoint']
    ways = [{'ref_model': first}, {'ref_adapters': [first]}, {'ref_adapters': [first], 'sync_ref_model': True},
            {'ref_model': first, 'sync_ref_model': True}, {'ref_model': first, 'tuner_type': 'full'}]  # fmt: skip
    margins = [run(**way, max_steps=1)['lines'][0][1] for way in ways]
    assert margins[0] < -0.3 and margins == pytest.approx([margins[0]] * 5, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_the_copy_has_the_policys_type(run, dtype):
    """float16 weights are trained as float32: the copy is float32 too, and the first margin 0."""
    assert run(tuner_type='full', torch_dtype=dtype, max_steps=1)['lines'][0][1] == 0


def test_another_vocabulary_is_refused(run, tmp_path):
    other = tmp_path / 'other'
    build_model(vocab_size=640).save_pretrained(other)
    build_tokenizer(400).save_pretrained(other)
    with pytest.raises(ModelError, match=r'the reference \(.*other\) has another vocabulary than the model: token .* take a --ref_model with the same'):
        run(ref_model=str(other))


def test_a_reference_that_can_not_run_flat_takes_the_policy_along(run, tmp_path, tiny_dir, capfd):
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    MambaForCausalLM(MambaConfig(vocab_size=640, hidden_size=16, state_size=4, num_hidden_layers=1, eos_token_id=2, pad_token_id=0)).save_pretrained(
        tmp_path / 'mamba'
    )
    build_tokenizer().save_pretrained(tmp_path / 'mamba')
    result = run(ref_model=str(tmp_path / 'mamba'), max_steps=2)
    assert 'MambaForCausalLM runs on padded rows' in capfd.readouterr().err
    assert all(np.isfinite(row).all() for row in result['lines'])
    flat = run(ref_model=str(tmp_path / 'mamba'), max_steps=2, precompute_ref_log_probs=True)  # then the policy need not care
    assert same(flat['lines'], result['lines'], 1e-3)


# ---- resuming


@pytest.mark.parametrize('settings', [
    slow({'tuner_type': 'full'}), slow({}), slow({'init_weights': 'pissa'}), {'sync_ref_model': True, 'ref_model_sync_steps': 1},
    slow({'tuner_type': 'full', 'sync_ref_model': True, 'ref_model_sync_steps': 1}),
    slow({'precompute_ref_log_probs': True, 'tuner_type': 'full'}),
], ids=['full', 'lora', 'pissa', 'sync', 'full sync', 'precomputed'])  # fmt: skip
def test_resumed_is_straight_to_the_bit(run, tmp_path, settings):
    """The reference after a resume is the one of before: the starting model, or where it had moved to."""
    settings = dict(max_steps=4, save_strategy='steps', save_steps=2, **settings)
    straight = run(**settings)
    half = os.path.join(straight['run_dir'], 'checkpoint-2')
    rest = run(**settings, resume_from_checkpoint=half, output_dir=str(tmp_path / 'resumed'), add_version=False)
    assert lines(rest)[-2:] == lines(straight)[-2:]
    name = 'model.safetensors' if settings.get('tuner_type') == 'full' else 'adapter_model.safetensors'
    ends = [load_file(os.path.join(result['last_model_checkpoint'], name)) for result in (straight, rest)]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    followed = [os.path.isfile(os.path.join(result['last_model_checkpoint'], 'reference_model.safetensors')) for result in (straight, rest)]
    assert followed == [bool(settings.get('sync_ref_model'))] * 2


@pytest.mark.parametrize('tuner', ['full', slow('lora')])
def test_only_the_weights_of_a_checkpoint(run, tuner):
    """The policy goes on from the checkpoint; the reference is still the starting model, so the margin goes on too."""
    straight = run(tuner_type=tuner, save_strategy='steps', save_steps=3, max_steps=3)
    again = run(tuner_type=tuner, resume_from_checkpoint=straight['last_model_checkpoint'], resume_only_model=True, max_steps=1)
    assert again['lines'][0][1] > 0.5 * straight['lines'][-1][1] > 0.1


@pytest.mark.slow
def test_a_checkpoint_without_the_moved_reference(run, tmp_path):
    first = run(save_strategy='steps', save_steps=2, max_steps=2)['last_model_checkpoint']
    with pytest.raises(Exception, match='was written without --sync_ref_model true'):
        run(sync_ref_model=True, resume_from_checkpoint=first, max_steps=4)


# ---- following the policy


@pytest.mark.parametrize('tuner', ['lora', slow('full')])
def test_the_reference_follows(run, tuner):
    """alpha 1 after every step: the policy is its own reference of one step ago, so margins stay small."""
    settings = dict(tuner_type=tuner, max_steps=4, ref_model_sync_steps=1, ref_model_mixup_alpha=1.0)
    still, moved = run(tuner_type=tuner, max_steps=4), run(sync_ref_model=True, save_strategy='steps', save_steps=4, **settings)
    assert same(still['lines'][:1], moved['lines'][:1])
    assert moved['lines'][1][1] == pytest.approx(0, abs=1e-4) and still['lines'][1][1] > 0.1
    stored = load_file(os.path.join(moved['last_model_checkpoint'], 'reference_model.safetensors'))
    if tuner == 'full':
        policy = load_file(os.path.join(moved['last_model_checkpoint'], 'model.safetensors'))
        assert all(torch.equal(stored[name], policy[name]) for name in stored)
    else:
        assert any('q_proj' in name for name in stored) and not any('lora' in name for name in stored)


# ---- computed once


@pytest.fixture
def asked(monkeypatch):
    """Samples whose values were computed."""
    found, original = [], reference_logps.reference_values

    def counted(samples, *rest):
        found.extend(samples)
        return original(samples, *rest)

    monkeypatch.setattr(reference_logps, 'reference_values', counted)
    return found


@pytest.mark.parametrize('settings', [
    slow({}), slow({'tuner_type': 'full'}),
    slow({'packing': True, 'packing_length': 200, 'per_device_train_batch_size': 1}),
    slow({'padding_free': False}), {'rlhf_type': 'kto'}, slow({'init_weights': 'pissa'}), slow({'loss_scale': 'default'}),
], ids=['lora', 'full', 'packed', 'padded', 'kto', 'pissa', 'all turns'])  # fmt: skip
def test_stored_values_train_the_same(run, settings, asked):
    """Training and validation, in any order of batches; what is stored is what would have been computed."""
    settings = dict(split_dataset_ratio=0.2, eval_strategy='steps', eval_steps=2, **settings)
    now, stored = run(**settings), run(precompute_ref_log_probs=True, **settings)
    assert asked
    names = ('loss', 'grad_norm')
    assert same(lines(now, *names), lines(stored, *names), 1e-4 if 'init_weights' in settings else 2e-5)
    evals = [[line['eval_loss'] for line in result['log_history'] if 'eval_loss' in line] for result in (now, stored)]
    assert evals[0] and same(evals[0], evals[1], 1e-4)


def test_a_second_run_asks_nobody(run, asked, loads, tiny_dir, capfd):
    settings = dict(tuner_type='full', precompute_ref_log_probs=True, split_dataset_ratio=0.2, max_steps=1)
    first = run(**settings)
    assert loads == [tiny_dir] * 2 and len(asked) == 20
    again = run(**settings)
    assert loads == [tiny_dir] * 3 and len(asked) == 20  # no reference was loaded, none was run
    assert first['lines'] == again['lines'] and 'training samples read from the cache' in capfd.readouterr().err


def test_another_model_or_other_data_are_computed_anew(run, asked, tmp_path, tiny_dir, pairs):
    mine = str(tmp_path / 'mine')
    shutil.copytree(tiny_dir, mine)
    settings = dict(model=mine, precompute_ref_log_probs=True, max_steps=1)
    run(**settings)
    assert len(asked) == 20
    weights = load_file(os.path.join(mine, 'model.safetensors'))
    save_file({name: value * 1.5 for name, value in weights.items()}, os.path.join(mine, 'model.safetensors'), {'format': 'pt'})
    with open(pairs, 'a') as file:
        file.write(json.dumps({'query': 'one more', 'response': 'yes', 'rejected_response': 'no'}) + '\n')
    run(**settings, load_from_cache_file=False)
    assert len(asked) == 41


def test_what_identifies_a_reference(tmp_path, tiny_dir):
    mine = str(tmp_path / 'mine')
    shutil.copytree(tiny_dir, mine)

    def key(*adapters, folder=mine, **flags):
        return identify(parse_args('rlhf', {'model': 'tiny', 'dataset': 'x.jsonl', **flags}), folder, adapters)

    keys = [key(), key(tiny_dir), key(torch_dtype='bfloat16'), key(bf16=True), key(attn_impl='eager'), key(model_kwargs={'attention_dropout': 0.1})]
    assert key() == keys[0] == key(learning_rate=1.0, beta=0.5, lora_rank=4, seed=3)
    os.utime(os.path.join(mine, 'model.safetensors'), (1, 1))
    keys.append(key())
    os.utime(os.path.join(mine, 'tokenizer.json'), (1, 1))
    assert key() == keys[-1]
    with open(os.path.join(mine, 'config.json'), 'a') as file:
        file.write(' ')
    assert len({*keys, key()}) == 8


def test_a_reference_adapter_is_gone_after_it_was_asked(run, asked, tiny_dir):
    first = run(save_strategy='steps', save_steps=3)['last_model_checkpoint']
    settings = dict(ref_adapters=first, precompute_ref_log_probs=True, save_strategy='steps', save_steps=3)
    shared, apart = run(**settings), run(ref_model=tiny_dir, **settings)
    assert len(asked) == 20 and same(shared['lines'], apart['lines']) and abs(shared['lines'][0][1]) > 0.3  # the same files: asked once
    names = [load_file(os.path.join(result['last_model_checkpoint'], 'adapter_model.safetensors')).keys() for result in (shared, apart)]
    assert names[0] == names[1] and not any('reference' in name for name in names[0])


def test_an_interrupted_computation_leaves_nothing(run, monkeypatch, tmp_path):
    cache = tmp_path / 'cache'
    monkeypatch.setattr(reference_logps, 'TOKENS', 60)
    calls, original = [], reference_logps.reference_values

    def failing(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(reference_logps, 'reference_values', failing)
    with pytest.raises(KeyboardInterrupt):
        run(precompute_ref_log_probs=True)
    assert len(calls) == 3 and os.listdir(cache / 'values') == []
    run(precompute_ref_log_probs=True, max_steps=1)
    assert len(os.listdir(cache / 'values')) == 1


def test_values_on_disk(tmp_path):
    rows = [np.arange(n, dtype=np.float32) / 7 for n in (3, 0, 5)]
    with ValueWriter(tmp_path / 'v') as writer:
        writer.add(rows[:2])
        assert not has_values(tmp_path / 'v')
        writer.add(rows[2:])
        values = writer.finish({'of': 'train'})
    assert os.listdir(tmp_path) == ['v'] and values.meta['of'] == 'train'
    assert all(np.array_equal(a, b) and b.dtype == np.float32 for a, b in zip(rows, Values(tmp_path / 'v'), strict=True))

    class Three(list):
        lengths = (4, 4, 4)

    samples = WithValues(Three([Sample([1], [1], extra={'margin': 0.5})] * 3), values, 'reference_logps')
    assert samples[2].extra['margin'] == 0.5 and samples[2].extra['reference_logps'].tolist() == rows[2].tolist()
    with pytest.raises(DatasetError, match='holds 3 samples, there are 1; delete it'):
        WithValues([1], values, 'reference_logps')
    with open(tmp_path / 'v' / 'values.bin', 'ab') as file:
        file.write(b'1234')
    with pytest.raises(DatasetError, match='damaged or of another version; delete it'):
        Values(tmp_path / 'v')


# ---- flags


@pytest.mark.parametrize('flags, message', [
    ({'precompute_ref_log_probs': True, 'streaming': True, 'max_steps': 1}, '--streaming true reads them as they come'),
    ({'precompute_ref_log_probs': True, 'lazy_tokenize': True}, '--lazy_tokenize true makes them during it'),
    ({'precompute_ref_log_probs': True, 'sync_ref_model': True}, '--sync_ref_model changes the reference; drop one of them'),
    ({'reference_free': True, 'ref_model': 'tiny'}, '--reference_free true trains without a reference model'),
    ({'reference_free': True, 'precompute_ref_log_probs': True}, '--precompute_ref_log_probs has no effect with --reference_free true'),
    ({'reference_free': True, 'sync_ref_model': True}, '--sync_ref_model has no effect with --reference_free true'),
    ({'reference_free': True, 'ref_adapters': ['x']}, '--ref_adapters has no effect with --reference_free true'),
    ({'ref_model_sync_steps': 5}, '--ref_model_sync_steps has no effect without --sync_ref_model true'),
    ({'ref_model_mixup_alpha': 0.5}, '--ref_model_mixup_alpha has no effect without --sync_ref_model true'),
    ({'ref_model_type': 'qwen3'}, '--ref_model_type has no effect without --ref_model'),
    ({'ref_adapters': ['x', 'y']}, 'a reference has one adapter'),
    ({'rlhf_type': 'orpo', 'ref_model': 'tiny'}, '--ref_model has no effect with --rlhf_type orpo'),
])  # fmt: skip
def test_flags_that_contradict_or_do_nothing(flags, message):
    with pytest.raises(ArgumentsError, match=message):
        parse_args('rlhf', {'model': 'tiny', 'dataset': 'x.jsonl', **flags})


@pytest.mark.parametrize('flags, copies', [
    ({}, False), ({'tuner_type': 'full'}, True), ({'ref_model': 'tiny'}, True), ({'sync_ref_model': True}, True),
    ({'tuner_type': 'full', 'precompute_ref_log_probs': True}, False), ({'tuner_type': 'full', 'reference_free': True}, False),
])  # fmt: skip
def test_the_estimate_knows_of_a_second_copy(flags, copies):
    assert keeps_copy(parse_args('rlhf', {'model': 'tiny', 'dataset': 'x.jsonl', **flags})) == copies


# ---- several processes, compiled graphs


@pytest.mark.slow
@pytest.mark.parametrize('settings', [
    {'precompute_ref_log_probs': True, 'tuner_type': 'full'}, {'precompute_ref_log_probs': True}, {'sync_ref_model': True, 'ref_model_sync_steps': 2},
], ids=['precomputed full', 'precomputed', 'sync'])  # fmt: skip
def test_two_processes_are_one(run, settings, tiny_dir, pairs, tmp_path):
    """They share the computation in advance, and their references move alike."""
    one = run(**settings, per_device_train_batch_size=8, split_dataset_ratio=0.2)
    rate = '1e-3' if settings.get('tuner_type') == 'full' else '1e-2'
    flags = {'model': tiny_dir, 'dataset': pairs, 'output_dir': str(tmp_path / 'two'), 'max_steps': 3, 'per_device_train_batch_size': 4,
             'learning_rate': rate, 'report_to': 'none', 'logging_steps': 1, 'save_strategy': 'no', 'split_dataset_ratio': 0.2, **settings}  # fmt: skip
    flags |= {} if 'tuner_type' in settings else {'lora_dropout': 0.0}
    words = [word for name, value in flags.items() for word in (f'--{name}', str(value))]
    env = {**os.environ, 'NPROC_PER_NODE': '2', 'OMP_NUM_THREADS': '1', 'SWIFT_CACHE': str(tmp_path / 'cache of two')}
    done = subprocess.run([sys.executable, '-m', 'swift', 'rlhf', *words], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (log,) = glob.glob(str(tmp_path / 'two' / '*' / 'logging.jsonl'))
    two = lines({'log_history': [json.loads(line) for line in open(log)]})
    assert same(one['lines'], two)
    if 'precompute_ref_log_probs' in settings:
        assert len(os.listdir(tmp_path / 'cache of two' / 'values')) == 2  # training and validation, once each
        for folder in os.listdir(tmp_path / 'cache' / 'values'):
            both = [Values(tmp_path / cache / 'values' / folder) for cache in ('cache', 'cache of two')]
            assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(*both, strict=True)) and len(both[0]) in (4, 16)


@pytest.mark.slow
@pytest.mark.parametrize('settings', [{'torch_compile': True, 'torch_compile_backend': 'eager'}, {'gradient_checkpointing': True}],
                         ids=['compiled', 'checkpointed'])  # fmt: skip
def test_compiled_or_checkpointed_is_the_same(run, settings):
    assert same(run()['lines'], run(**settings)['lines'])
