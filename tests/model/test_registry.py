"""Families as data, aliases of old, and both forms of registration."""

import shutil

import pytest
import torch

from swift.arguments.model import ModelArgs
from swift.core.errors import ModelError, SwiftError
from swift.model import (
    MODEL_MAPPING,
    MLLMModelType,
    Model,
    ModelArch,
    ModelGroup,
    ModelMeta,
    get_model_list,
    get_model_processor,
    get_model_tokenizer,
    load_model,
    model_info,
    models_map,
    register_model,
)
from swift.model.registry import checkpoint_of, find_checkpoint, find_family, normalise


@pytest.fixture
def clean():
    known = set(MODEL_MAPPING)
    yield
    for name in set(MODEL_MAPPING) - known:
        del MODEL_MAPPING[name]


def test_families_are_known():
    assert len(get_model_list()) >= 236 and models_map is MODEL_MAPPING
    assert MODEL_MAPPING['llava1_5_hf'].is_multimodal and MODEL_MAPPING['llava1_5_hf'].model_arch == 'llava_hf'
    with pytest.raises(SwiftError, match='did you mean .*qwen3'):
        MODEL_MAPPING['qwen33']


@pytest.mark.parametrize(
    'alias, model',
    [
        ('qwen2-7b-instruct', 'Qwen/Qwen2-7B-Instruct'),
        ('qwen2.5-14b-instruct', 'Qwen/Qwen2.5-14B-Instruct'),
        ('qwen2_5-72b-instruct', 'Qwen/Qwen2.5-72B-Instruct'),
        ('qwen1half-7b-chat', 'Qwen/Qwen1.5-7B-Chat'),
        ('qwen-7b-chat', 'Qwen/Qwen-7B-Chat'),
        ('qwen-vl-chat', 'Qwen/Qwen-VL-Chat'),
        ('qwen2-vl-7b-instruct', 'Qwen/Qwen2-VL-7B-Instruct'),
        ('internvl2-8b', 'OpenGVLab/InternVL2-8B'),
        ('codeqwen-7b', 'Qwen/CodeQwen1.5-7B'),
    ],
)
def test_checkpoint_names_of_old(alias, model):
    assert checkpoint_of(alias) == model


def test_a_checkpoint_that_never_was_is_answered_with_its_neighbours():
    with pytest.raises(ModelError, match="unknown model_type 'qwen-13b-chat'; did you mean 'qwen-1[48]b-chat'"):
        checkpoint_of('qwen-13b-chat')
    with pytest.raises(ModelError, match="'qwen2' names a family of .* say which with --model"):
        checkpoint_of('qwen2')


def test_ids_are_compared_without_case_and_punctuation():
    assert normalise('Qwen/Qwen2.5-7B-Instruct') == normalise('qwen2_5-7b-instruct') == 'qwen257binstruct'
    assert find_checkpoint('LLM-Research/Meta-Llama-3-8B-Instruct')[0].model_type == find_checkpoint('llama3-8b-instruct')[0].model_type


def test_the_family_of_a_local_copy_is_known_by_its_folder(tiny_dir, tmp_path):
    info = model_info(ModelArgs(model=shutil.copytree(tiny_dir, tmp_path / 'Qwen3-0.6B')))
    assert (info.model_type, info.config_type) == ('qwen3', 'qwen3')
    assert info.template == MODEL_MAPPING['qwen3'].template


def test_an_architecture_of_several_families_says_nothing():
    assert find_family(None, 'something/else', 'LlamaForCausalLM') == (None, None)


def test_model_type_as_family(tiny_dir):
    assert model_info(ModelArgs(model=tiny_dir, model_type='qwen2')).model_type == 'qwen2'
    assert model_info(ModelArgs(model=tiny_dir, model_type='qwen2-7b-instruct')).model_type == 'qwen2'
    with pytest.raises(ModelError, match="unknown model_type 'qwen_3x'"):
        model_info(ModelArgs(model=tiny_dir, model_type='qwen_3x'))


def test_register_by_call_and_load_by_model_type(tiny_dir, clean):
    register_model(ModelMeta('my_family', [ModelGroup([Model(model_path=tiny_dir)])], template='chatml', architectures=['X']))
    assert 'my_family' in get_model_list()
    loaded = load_model(ModelArgs(model_type='my_family'))
    assert (loaded.info.model_type, loaded.info.template) == ('my_family', 'chatml')


def test_register_by_decorator(clean):
    @register_model('my-model-7b')
    def my_model():
        return ModelMeta(model_id='org/my-model-7b', template='chatml', arch='my_arch', task='chat')

    assert 'my-model-7b' in get_model_list() and models_map['my-model-7b'].model_arch == 'my_arch'
    assert checkpoint_of('my-model-7b') == 'org/my-model-7b'
    assert isinstance(my_model(), ModelMeta)  # the function stays a function

    models_map['other'] = my_model
    assert models_map['other'].model_type == 'other'


def test_registering_twice_needs_a_word(clean):
    register_model(ModelMeta('mine', template='chatml'))
    register_model(ModelMeta('mine', template='chatml'))  # the same plugin loaded twice
    with pytest.raises(ModelError, match='registered already'):
        register_model(ModelMeta('mine', template='llama3'))
    assert register_model(ModelMeta('mine', template='llama3'), exist_ok=True).template == 'llama3'
    with pytest.raises(ModelError, match='must return a ModelMeta'):
        register_model('broken')(lambda: 3)


def test_a_family_may_bring_its_own_loading(tiny_dir, clean):
    def load(model_dir, info, model_kwargs, load_model=True, *, model_meta=None):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=model_kwargs['torch_dtype'])
        torch.nn.init.constant_(model.model.norm.weight, 2.0)
        return model, AutoTokenizer.from_pretrained(model_dir)

    register_model(ModelMeta(MLLMModelType.llava1_5_hf, get_function=load, model_arch=ModelArch.llava_hf), exist_ok=True)
    try:
        loaded = load_model(ModelArgs(model=tiny_dir, model_type='llava1_5_hf'))
        assert loaded.model.model.norm.weight.unique().tolist() == [2.0]
    finally:
        del MODEL_MAPPING['llava1_5_hf']
        MODEL_MAPPING._loaded = False  # read the shipped facts again


def test_names_are_checked():
    assert MLLMModelType.llava1_5_hf == 'llava1_5_hf'
    with pytest.raises(AttributeError, match='did you mean'):
        _ = MLLMModelType.llava1_5_hff


def test_the_functions_of_old(tiny_dir):
    model, tokenizer = get_model_tokenizer(tiny_dir, torch.bfloat16)
    assert model.dtype == torch.bfloat16 and tokenizer.eos_token == '<|im_end|>'
    assert get_model_processor(tiny_dir, load_model=False)[0] is None
    with pytest.raises(ModelError, match="no argument 'atn_impl'; did you mean 'attn_impl'"):
        get_model_processor(tiny_dir, atn_impl='eager')
