"""LoRA: what is adapted, what is stored, and that it comes back exactly."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from swift.arguments.model import ModelArgs
from swift.arguments.tuner import TunerArgs
from swift.core.errors import CheckpointError, ModelError
from swift.model import load_model
from swift.tuners import load_adapter, merge, prepare_tuner, save_tuner
from swift.tuners.peft import adapter_settings
from swift.tuners.restore import restore_weights

IDS = torch.randint(10, 400, (2, 24), generator=torch.Generator().manual_seed(3))


def logits(model):
    model.eval()
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits.float()


def steps(model, count=2, lr=5e-3):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    model.train()
    for _ in range(count):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def prepare(folder, tokens=(), dtype='float32', **settings):
    loaded = load_model(ModelArgs(model=folder, new_special_tokens=list(tokens), torch_dtype=dtype), for_training=True)
    torch.manual_seed(0)
    return prepare_tuner(loaded.model, TunerArgs(**{'lora_dropout': 0.0, **settings}), info=loaded.info), loaded


def reload(folder, adapter, dtype='float32'):
    loaded = load_model(ModelArgs(model=folder, adapters=[str(adapter)], torch_dtype=dtype))
    return load_adapter(loaded.model, loaded.info.adapters)


def adapted(model):
    return sorted(name.removeprefix('base_model.model.') for name, module in model.named_modules() if hasattr(module, 'lora_A'))


def test_a_fresh_adapter_changes_nothing_and_trains_alone(tiny_dir):
    base = logits(load_model(ModelArgs(model=tiny_dir)).model)
    model, _ = prepare(tiny_dir)
    assert torch.equal(logits(model), base)
    assert {name.split('.')[-3] for name, p in model.named_parameters() if p.requires_grad} == {'lora_A', 'lora_B'}


def test_base_weights_are_bit_identical_after_training(tiny_dir):
    before = load_model(ModelArgs(model=tiny_dir)).model.state_dict()
    model, _ = prepare(tiny_dir)
    steps(model, 3)
    after = {name.replace('.base_layer', ''): value for name, value in model.get_base_model().state_dict().items() if 'lora_' not in name}
    assert set(after) == set(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert not torch.equal(logits(model), logits(load_model(ModelArgs(model=tiny_dir)).model))


CASES = {
    'plain': {},
    'dora': dict(use_dora=True),
    'rslora': dict(use_rslora=True),
    'gaussian': dict(init_weights='gaussian'),
    'bias': dict(lora_bias='all'),
    'half adapter': dict(lora_dtype='bfloat16'),
    'embedding in full': dict(modules_to_save=['embedding']),
    'head in full': dict(modules_to_save=['lm_head']),
    'norms in full': dict(modules_to_save=['all-norm']),
    'one projection': dict(target_modules=['q_proj']),
}


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('tokens', [(), ('<a>', '<b>')])
def test_saved_and_reloaded_adapters_answer_the_same(tiny_dir, tmp_path, case, tokens):
    model, loaded = prepare(tiny_dir, tokens, **CASES[case])
    steps(model)
    save_tuner(model, tmp_path, processor=loaded.processor)
    again = reload(tiny_dir, tmp_path)
    rounding = 2e-3 if case == 'half adapter' else 0.0  # trained in bfloat16, reloaded it computes in float32
    assert (logits(again) - logits(model)).abs().max() <= rounding
    merged, report = merge(again)
    assert (logits(merged) - logits(model)).abs().max() < 1e-4 + rounding and report.kl < 1e-6 < report.effect


@pytest.mark.parametrize('init', ['pissa', 'pissa_niter_4', 'olora'])
@pytest.mark.parametrize('rslora', [False, True])
def test_inits_that_change_the_base_are_stored_against_the_original_base(tiny_dir, tmp_path, init, rslora):
    """Plain PEFT on the base from disk answers as the trained model; the stored rank is twice the trained one."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model, loaded = prepare(tiny_dir, init_weights=init, use_rslora=rslora)
    assert (logits(model) - logits(load_model(ModelArgs(model=tiny_dir)).model)).abs().max() < 1e-5
    steps(model)
    save_tuner(model, tmp_path, processor=loaded.processor)
    config = json.load(open(tmp_path / 'adapter_config.json'))
    assert config['r'] == 16 and config['init_lora_weights'] is True
    settings = adapter_settings(str(tmp_path))
    assert [settings[key] for key in ('r', 'lora_alpha', 'use_rslora', 'init_lora_weights')] == [8, 32, rslora, init]
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_dir), tmp_path)
    assert (logits(plain) - logits(model)).abs().max() < 1e-5
    assert merge(reload(tiny_dir, tmp_path))[1].max_diff < 1e-4


@pytest.mark.parametrize('init', ['pissa', 'pissa_niter_4', 'olora'])
def test_training_goes_on_from_a_stored_difference(tiny_dir, tmp_path, init):
    """Weights and next step of: straight on; adapter on a fresh base; resumed into a newly prepared model."""
    model, loaded = prepare(tiny_dir, init_weights=init)
    steps(model)
    save_tuner(model, tmp_path, processor=loaded.processor)

    fresh = load_model(ModelArgs(model=tiny_dir, adapters=[str(tmp_path)]), for_training=True)
    further = load_adapter(fresh.model, fresh.info.adapters, trainable=True)
    resumed = load_model(ModelArgs(model=tiny_dir), for_training=True)
    torch.manual_seed(99)  # another draw for the randomised decomposition
    resumed = prepare_tuner(resumed.model, TunerArgs(lora_dropout=0.0, init_weights=init), info=resumed.info)
    restore_weights(resumed, str(tmp_path))
    for other in (further, resumed):
        assert other.peft_config['default'].r == 8
        assert torch.allclose(logits(other), logits(model), atol=1e-5)
    for trained in (model, further, resumed):
        steps(trained, 1)
    assert torch.allclose(logits(further), logits(model), atol=1e-4)
    assert torch.allclose(logits(resumed), logits(model), atol=1e-4)
    save_tuner(resumed, tmp_path / 'next')
    assert torch.allclose(logits(reload(tiny_dir, tmp_path / 'next')), logits(resumed), atol=1e-5)


def test_plain_peft_loads_what_we_write(tiny_dir, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model, _ = prepare(tiny_dir)
    steps(model)
    save_tuner(model, tmp_path)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_dir), tmp_path)
    assert torch.equal(logits(plain), logits(model))
    assert sorted(os.listdir(tmp_path)) == ['adapter_config.json', 'adapter_model.safetensors']


def test_we_load_what_plain_peft_writes(tiny_dir, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load_model(ModelArgs(model=tiny_dir)).model, LoraConfig(r=4, target_modules=['q_proj', 'up_proj']))
    steps(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(reload(tiny_dir, tmp_path)), logits(model))


def edit(folder, change):
    path = os.path.join(folder, 'adapter_model.safetensors')
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={'format': 'pt'})


KEY = 'base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight'


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda w: w.pop(KEY), r'1 missing weights \(first: .*q_proj.lora_B'),
        (lambda w: w.update({KEY.replace('layers.0', 'layers.7'): torch.zeros(64, 8)}), r'1 unexpected weights \(first: .*layers.7'),
        (lambda w: w.update({KEY: torch.zeros(64, 4)}), r'q_proj.lora_B.weight is \(64, 4\), the model wants \(64, 8\)'),
    ],
)
def test_an_adapter_that_does_not_fit_is_an_error(tiny_dir, tmp_path, change, words):
    model, _ = prepare(tiny_dir)
    save_tuner(model, tmp_path)
    edit(tmp_path, change)
    with pytest.raises(CheckpointError, match=words):
        reload(tiny_dir, tmp_path)


def test_a_truncated_or_absent_file_is_an_error(tiny_dir, tmp_path):
    model, _ = prepare(tiny_dir)
    save_tuner(model, tmp_path)
    base = load_model(ModelArgs(model=tiny_dir)).model
    file = tmp_path / 'adapter_model.safetensors'
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(CheckpointError, match='can not be read'):
        load_adapter(base, str(tmp_path))
    file.unlink()
    with pytest.raises(CheckpointError, match='has no adapter_model.safetensors'):
        load_adapter(base, str(tmp_path))
    with pytest.raises(CheckpointError, match='holds no adapter'):
        load_adapter(base, str(tmp_path / 'nowhere'))


def test_two_adapters_beside_each_other(tiny_dir, tmp_path):
    answers = {}
    for name, seed in (('one', 1), ('two', 2)):
        model, _ = prepare(tiny_dir, init_weights='gaussian', lora_rank=4 * seed)
        steps(model, seed)
        save_tuner(model, tmp_path / name)
        answers[name] = logits(model)
    both = load_adapter(load_model(ModelArgs(model=tiny_dir)).model, [tmp_path / 'one', tmp_path / 'two'], names=['one', 'two'])
    assert torch.equal(logits(both), answers['one'])
    both.set_adapter('two')
    assert torch.equal(logits(both), answers['two'])


def test_new_tokens_are_trained_saved_and_merged(tiny_dir, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, loaded = prepare(tiny_dir, ['<a>', '<b>'])
    first, second = loaded.info.new_token_ids
    start = loaded.model.get_input_embeddings().weight.detach().clone()
    ids = torch.tensor([[20, first, 30, second, 40]])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    rows = model.get_input_embeddings().weight.detach()
    changed = (rows - start).abs().sum(1).nonzero().flatten().tolist()
    assert changed == [first, second]  # those rows, and no other
    save_tuner(model, tmp_path / 'adapter', processor=loaded.processor)
    merged, _ = merge(reload(tiny_dir, tmp_path / 'adapter'))
    save_tuner(merged, tmp_path / 'merged', processor=loaded.processor)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / 'merged')
    assert torch.allclose(plain.get_input_embeddings().weight[[first, second]], rows[[first, second]], atol=1e-6)
    assert AutoTokenizer.from_pretrained(tmp_path / 'merged').convert_tokens_to_ids('<b>') == second


def test_new_tokens_of_an_untied_model(tmp_path):
    from tests.helpers.tiny import save_tiny

    folder = save_tiny(tmp_path / 'untied', tie_word_embeddings=False)
    model, loaded = prepare(folder, ['<a>'])
    config = model.peft_config['default']
    assert config.trainable_token_indices == {'embed_tokens': [loaded.info.new_token_ids[0]], 'lm_head': [loaded.info.new_token_ids[0]]}
    steps(model)
    save_tuner(model, tmp_path / 'adapter', processor=loaded.processor)
    again = reload(folder, tmp_path / 'adapter')
    assert torch.equal(logits(again), logits(model))
    assert (logits(merge(again)[0]) - logits(model)).abs().max() < 1e-5


def test_tied_embedding_in_full_keeps_the_tie(tiny_dir):
    """Training the embedding of a tied model trains the head with it, and merging keeps one tensor."""
    model, _ = prepare(tiny_dir, modules_to_save=['embed_tokens'])
    steps(model)
    before = logits(model)
    merged, _ = merge(model)
    assert merged.lm_head.weight.data_ptr() == merged.model.embed_tokens.weight.data_ptr()
    assert (logits(merged) - before).abs().max() < 1e-5


def test_half_precision_base_gets_a_float32_adapter(tiny_dir):
    model, _ = prepare(tiny_dir, dtype='bfloat16')
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    model, _ = prepare(tiny_dir, dtype='bfloat16', lora_dtype='bfloat16')
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.bfloat16}
    model, _ = prepare(tiny_dir, dtype='float16', modules_to_save=['embedding'])
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


def test_scaling(tiny_dir):
    model, _ = prepare(tiny_dir, lora_rank=4, lora_alpha=16)
    assert model.base_model.model.model.layers[0].self_attn.q_proj.scaling['default'] == 4.0
    model, _ = prepare(tiny_dir, lora_rank=4, lora_alpha=16, use_rslora=True)
    assert model.base_model.model.model.layers[0].self_attn.q_proj.scaling['default'] == 8.0


@pytest.mark.parametrize(
    'settings, expected',
    [
        (dict(target_modules=['q_proj', 'v_proj']), ['q_proj', 'v_proj']),
        (dict(target_modules=['llm.*.q_proj', 'llm.*.v_proj']), ['q_proj', 'v_proj']),
        (dict(target_modules=['*.o_proj']), ['o_proj']),
        (dict(target_regex=r'.*\.(up|down)_proj'), ['down_proj', 'up_proj']),
        (dict(target_modules=['all-linear']), ['down_proj', 'gate_proj', 'k_proj', 'o_proj', 'q_proj', 'up_proj', 'v_proj']),
    ],
)
def test_target_modules(tiny_dir, settings, expected):
    names = adapted(prepare(tiny_dir, **settings)[0])
    assert sorted({name.rpartition('.')[2] for name in names}) == expected and len(names) == 2 * len(expected)


def test_one_layer_only(tiny_dir):
    model, _ = prepare(tiny_dir, target_modules=['layers.1.*.q_proj'])
    assert adapted(model) == ['model.layers.1.self_attn.q_proj']


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(target_modules=['q_porj']), "--target_modules 'q_porj' matches no module; did you mean 'q_proj'"),
        (dict(target_regex='(('), '--target_regex .* is not a regular expression'),
        (dict(target_regex='nothing'), '--target_regex .* matches no module; names look like model.layers.0'),
        (dict(target_parameters=['experts.gate_up_proj']), '--target_parameters .* matches no parameter'),
        (dict(modules_to_save=['embd']), '--modules_to_save .embd. matches no module'),
        (dict(init_weights='pisa'), "unknown --init_weights 'pisa'; did you mean 'pissa'"),
        (dict(init_weights='loftq'), 'this model is not quantised'),
        (dict(init_weights='pissa', use_dora=True), '--use_dora can not be combined'),
    ],
)
def test_mistakes_are_named(tiny_dir, settings, words):
    with pytest.raises(ModelError, match=words):
        prepare(tiny_dir, **settings)


def test_a_plan_needs_no_memory(tiny_dir):
    from swift.model import model_info
    from swift.model.empty import empty_model
    from swift.tuners import coverage

    info = model_info(ModelArgs(model=tiny_dir))
    with torch.device('meta'):
        model = prepare_tuner(empty_model(ModelArgs(model=tiny_dir), info), TunerArgs(init_weights='pissa'), info=info)
    assert {p.device.type for p in model.parameters()} == {'meta'}
    assert coverage(model).trainable == coverage(prepare(tiny_dir)[0]).trainable


def test_a_model_on_its_way_keeps_peft_out():
    """Importing the room, or training in full, does not pay for PEFT."""
    import subprocess
    import sys

    code = (
        'import sys, torch; from tests.helpers.tiny import build_model; from swift.arguments.tuner import TunerArgs\n'
        'from swift.tuners import prepare_tuner, coverage, save_tuner, merge\n'
        "coverage(prepare_tuner(build_model(), TunerArgs(tuner_type='full'))); print('peft' in sys.modules)"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'False'
