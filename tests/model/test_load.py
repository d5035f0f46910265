"""Loading: what is found, what is refused, and that the numbers are the checkpoint's."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from swift.arguments.model import ModelArgs
from swift.core.errors import MissingDependencyError, ModelError
from swift.model import load_model, load_processor, model_info
from swift.model.options import device_map, max_memory, rope


def args(model, **kwargs):
    return ModelArgs(model=str(model), **kwargs)


@pytest.fixture
def copy(tiny_dir, tmp_path):
    """A copy of the tiny model that a test may damage."""
    return shutil.copytree(tiny_dir, tmp_path / 'model')


def edit_config(folder, **fields):
    path = os.path.join(folder, 'config.json')
    config = {**json.load(open(path)), **fields}
    json.dump(config, open(path, 'w'))


def edit_weights(folder, change):
    path = os.path.join(folder, 'model.safetensors')
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={'format': 'pt'})


def test_a_loaded_model_says_what_transformers_says(tiny_dir):
    from transformers import AutoModelForCausalLM

    loaded = load_model(args(tiny_dir))
    ids = torch.arange(30).reshape(2, 15)
    expected = AutoModelForCausalLM.from_pretrained(tiny_dir)(ids).logits
    assert torch.equal(loaded.model(ids).logits, expected)
    assert loaded.tokenizer.pad_token == '<|endoftext|>' and loaded.info.config_type == 'qwen3'


def test_facts_come_from_files_alone(tiny_dir):
    info = model_info(args(tiny_dir))
    assert (info.num_params, info.num_params_exact) == (115072, True)  # 640·64 + 2·(64·64·2 + 64·32·2 + 3·64·128 + 160) + 64
    assert (info.vocab_size, info.hidden_size, info.num_layers, info.max_model_len) == (640, 64, 2, 4096)
    assert not info.is_moe and not info.is_multimodal and info.tie_word_embeddings


def test_facts_need_no_torch(tiny_dir):
    code = (
        'import sys; from swift.arguments.model import ModelArgs; from swift.model import model_info, get_model_list\n'
        f'model_info(ModelArgs(model={tiny_dir!r})); get_model_list()\n'
        'print("torch" in sys.modules, "transformers" in sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['False', 'False']


def test_missing_weights_are_an_error_unless_they_may_be_filled(copy):
    edit_weights(copy, lambda weights: weights.pop('model.layers.1.mlp.up_proj.weight'))
    with pytest.raises(ModelError, match='1 weights are missing .*layers.1.mlp.up_proj'):
        load_model(args(copy))
    filled = load_model(args(copy, init_strategy='zero')).model
    assert not filled.model.layers[1].mlp.up_proj.weight.any() and filled.model.layers[0].mlp.up_proj.weight.any()


def test_a_layer_that_config_json_does_not_know_is_an_error(copy):
    edit_weights(copy, lambda weights: weights.update({'model.layers.2.mlp.up_proj.weight': torch.ones(128, 64)}))
    with pytest.raises(ModelError, match='no place in Qwen3ForCausalLM .*layers.2.mlp'):
        load_model(args(copy))


def test_heads_for_another_purpose_are_left_out_and_named(copy, capfd):
    edit_weights(copy, lambda weights: weights.update({'v_head.summary.weight': torch.ones(1, 64)}))
    assert load_model(args(copy)).model.num_parameters() > 0
    assert '1 weights are not part of Qwen3ForCausalLM and are left out (v_head.summary.weight)' in capfd.readouterr().err


def test_mismatched_shapes_are_an_error(copy):
    edit_config(copy, intermediate_size=96)
    with pytest.raises(ModelError, match=r'another shape .* is \(64, 128\), not \(64, 96\)'):
        load_model(args(copy))


def test_tied_embeddings_are_not_missing(tiny_dir):
    model = load_model(args(tiny_dir)).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize('name, dtype', [('float32', torch.float32), ('bf16', torch.bfloat16), ('torch.float16', torch.float16)])
def test_torch_dtype_spellings(tiny_dir, name, dtype):
    assert load_model(args(tiny_dir, torch_dtype=name)).model.dtype == dtype


def test_half_precision_files_are_computed_in_float32_on_the_cpu(copy):
    edit_weights(copy, lambda weights: weights.update({k: v.bfloat16() for k, v in weights.items()}))
    edit_config(copy, dtype='bfloat16')
    loaded = load_model(args(copy))
    on_cpu = not torch.accelerator.is_available()
    assert loaded.info.torch_dtype == 'bfloat16'
    assert loaded.model.dtype == (torch.float32 if on_cpu else torch.bfloat16)


def test_unknown_dtype(tiny_dir):
    with pytest.raises(ModelError, match='unknown --torch_dtype .*float12'):
        load_model(args(tiny_dir, torch_dtype='float12'))


def test_attention_names(tiny_dir):
    assert load_model(args(tiny_dir, attn_impl='eager')).model.config._attn_implementation == 'eager'
    assert load_model(args(tiny_dir, attn_impl='flex')).model.config._attn_implementation == 'flex_attention'
    assert load_model(args(tiny_dir)).model.config._attn_implementation == 'sdpa'
    with pytest.raises(ModelError, match="did you mean 'eager'"):
        load_model(args(tiny_dir, attn_impl='egar'))


def test_absent_flash_attention_is_one_line(tiny_dir, monkeypatch):
    monkeypatch.setattr('swift.model.options.installed', lambda name: False)
    with pytest.raises(MissingDependencyError, match='--attn_impl flash_attn needs the package flash-attn') as caught:
        load_model(args(tiny_dir, attn_impl='flash_attn'))
    assert '\n' not in str(caught.value)


def test_absent_quantiser_is_one_line(copy, monkeypatch):
    edit_config(copy, quantization_config={'quant_method': 'hqq', 'bits': 4})
    monkeypatch.setattr('swift.model.options.installed', lambda name: False)
    assert model_info(args(copy)).quant_bits == 4
    with pytest.raises(MissingDependencyError, match='quantised with hqq'):
        load_model(args(copy))


@pytest.mark.parametrize(
    'given, expected, length',
    [
        (dict(rope_scaling='linear', rope_scaling_factor=2), dict(rope_type='linear', factor=2.0), 8192),
        (dict(rope_scaling='dynamic', rope_scaling_factor=4), dict(rope_type='dynamic', factor=4.0), 16384),
        (
            dict(rope_scaling='yarn', max_model_len=6144),
            dict(rope_type='yarn', factor=1.5, original_max_position_embeddings=4096),
            6144,
        ),
        (
            dict(rope_scaling='{"type": "yarn", "factor": 2}'),
            dict(rope_type='yarn', factor=2, original_max_position_embeddings=4096),
            8192,
        ),
    ],
)
def test_rope_scaling(tiny_dir, given, expected, length):
    loaded = load_model(args(tiny_dir, **given))
    assert loaded.model.config.rope_parameters == {'rope_theta': 10000.0, **expected}
    assert loaded.info.max_model_len == length


def test_linear_scaling_stretches_positions(tiny_dir):
    """Position 2p under factor 2 is position p without: the inverse frequencies halve."""
    plain = load_model(args(tiny_dir)).model.model.rotary_emb.inv_freq
    scaled = load_model(args(tiny_dir, rope_scaling='linear', rope_scaling_factor=2)).model.model.rotary_emb.inv_freq
    assert torch.allclose(scaled * 2, plain)


def test_rope_scaling_needs_a_factor_and_a_known_name():
    with pytest.raises(ModelError, match='needs a factor; add --rope_scaling_factor or --max_model_len'):
        rope('yarn', None, None, 4096)
    with pytest.raises(ModelError, match="did you mean 'linear'"):
        rope('lineal', 2, None, 4096)


def test_model_kwargs_reach_the_configuration_and_typos_are_told(tiny_dir):
    assert load_model(args(tiny_dir, model_kwargs={'attention_dropout': 0.25})).model.config.attention_dropout == 0.25
    with pytest.raises(ModelError, match="unexpected keyword argument 'atention_dropout'"):
        load_model(args(tiny_dir, model_kwargs={'atention_dropout': 0.25}))


def test_remote_code_is_off_by_default(copy):
    edit_config(copy, model_type='someone_elses', auto_map={'AutoConfig': 'configuration.Mine'})
    with pytest.raises(ModelError, match='brings its own Python code .*--trust_remote_code true'):
        load_model(args(copy))


def test_new_tokens_start_at_the_mean_and_keep_the_others(tiny_dir):
    plain = load_model(args(tiny_dir))
    loaded = load_model(args(tiny_dir, new_special_tokens=['<think>', '<|end|>', '<|im_end|>']))
    old, new = plain.model.get_input_embeddings().weight, loaded.model.get_input_embeddings().weight
    length = len(plain.tokenizer)
    assert loaded.info.new_token_ids == (length, length + 1, 2)  # the last one was there already
    assert torch.equal(new[:length], old[:length])
    assert torch.allclose(new[length : length + 2], old[:length].mean(0).expand(2, -1))
    assert loaded.tokenizer.encode('a<think>b').count(length) == 1
    assert loaded.model.lm_head.weight is new


def test_new_tokens_grow_a_full_embedding(copy):
    edit_weights(copy, lambda weights: weights.update({'model.embed_tokens.weight': weights['model.embed_tokens.weight'][:442].clone()}))
    edit_config(copy, vocab_size=442)
    loaded = load_model(args(copy, new_special_tokens=['<a>', '<b>']))
    assert loaded.model.get_input_embeddings().weight.shape[0] == len(loaded.tokenizer) == 444
    assert loaded.model.config.vocab_size == 444


def test_new_tokens_from_a_file(tiny_dir, tmp_path):
    (tmp_path / 'tokens.txt').write_text('<one>\n\n<two>\n')
    assert '<two>' in load_processor(args(tiny_dir, new_special_tokens=[str(tmp_path / 'tokens.txt')])).get_vocab()
    with pytest.raises(ModelError, match='does not exist'):
        load_processor(args(tiny_dir, new_special_tokens=['nowhere.txt']))


def test_a_tokenizer_without_pad_token_gets_one_that_is_not_eos(copy):
    path = os.path.join(copy, 'tokenizer_config.json')
    config = json.load(open(path))
    config.pop('pad_token')
    json.dump(config, open(path, 'w'))
    tokenizer = load_processor(args(copy))
    assert tokenizer.pad_token == '<|endoftext|>' and tokenizer.eos_token == '<|im_end|>'


def test_device_map_and_max_memory_spellings(tmp_path):
    (tmp_path / 'map.json').write_text('{"": "cpu"}')
    assert device_map('auto') == 'auto' and device_map(str(tmp_path / 'map.json')) == {'': 'cpu'}
    assert max_memory('{"0": "20GiB", "cpu": "60GiB"}') == {0: '20GiB', 'cpu': '60GiB'}
    with pytest.raises(ModelError, match='--max_memory'):
        max_memory('20GiB')


def test_device_map_places_layers(tiny_dir):
    assert load_model(args(tiny_dir, device_map='cpu')).model.device.type == 'cpu'


def test_a_base_without_head_is_refused(copy):
    edit_config(copy, model_type='clip', architectures=['CLIPModel'])
    with pytest.raises(ModelError, match='no language-model head|can not be'):
        load_model(args(copy))


def test_threads_load_side_by_side(tiny_dir):
    from concurrent.futures import ThreadPoolExecutor

    ids = torch.arange(12)[None]
    with ThreadPoolExecutor(3) as pool:
        logits = [model.model(ids).logits for model in pool.map(lambda _: load_model(args(tiny_dir)), range(3))]
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[1], logits[2])
