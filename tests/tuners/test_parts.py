"""Which module of a multimodal model is language model, tower or aligner: for the architectures of transformers, without weights."""

import os

import pytest
import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

from swift.tuners.parts import ALIGNER, FIXED, LLM, VIT, parts_of, unreached
from tests.tuners.multimodal import llava, qwen2_vl

TOWER, PROJECTOR = ['model.vision_tower'], ['model.multi_modal_projector']
USUAL = (TOWER, PROJECTOR)
NEWLINE = (TOWER, ['model.multi_modal_projector', 'model.image_newline'])
VISUAL = (['model.visual'], ['model.visual.merger'])
BLIP = (['vision_model'], ['qformer', 'language_projection', 'query_tokens'])
AUDIO = (['model.audio_tower'], PROJECTOR)

PARTS = {
    'llava': USUAL,
    'llava_next': NEWLINE,
    'llava_next_video': NEWLINE,
    'llava_onevision': NEWLINE,
    'vipllava': USUAL,
    'video_llava': (['model.video_tower', 'model.image_tower'], PROJECTOR),
    'qwen2_vl': VISUAL,
    'qwen2_5_vl': VISUAL,
    'qwen3_vl': (['model.visual'], ['model.visual.merger', 'model.visual.deepstack_merger_list']),
    'qwen3_vl_moe': (['model.visual'], ['model.visual.merger', 'model.visual.deepstack_merger_list']),
    'qwen3_5': VISUAL,
    'internvl': USUAL,
    'gemma3': USUAL,
    'idefics2': (['model.vision_model'], ['model.connector']),
    'idefics3': (['model.vision_model'], ['model.connector']),
    'smolvlm': (['model.vision_model'], ['model.connector']),
    'mllama': (['model.vision_model'], PROJECTOR),
    'llama4': (['vision_model'], ['multi_modal_projector']),
    'paligemma': USUAL,
    'glm4v': VISUAL,
    'glm4v_moe': VISUAL,
    'mistral3': USUAL,
    'lighton_ocr': (['model.vision_encoder'], ['model.vision_projection']),
    'aria': USUAL,
    'cohere2_vision': USUAL,
    'blip-2': BLIP,
    'instructblip': BLIP,
    'florence2': USUAL,
    'kosmos-2': (['vision_model'], ['image_to_text_projection']),
    'fuyu': ([], ['model.vision_embed_tokens']),
    'git': (['git.image_encoder'], ['git.visual_projection']),
    'got_ocr2': USUAL,
    'ovis2': (TOWER, ['model.visual_embeddings_table']),
    'deepseek_vl': (['model.vision_model'], ['model.aligner']),
    'video_llama_3': (['model.vision_model'], ['model.projector']),
    'kimi_k25': (TOWER, ['model.mm_projector']),
    'ernie4_5_vl_moe': (TOWER, ['model.resampler_model']),
    'minicpmv4_6': (TOWER, ['model.vision_tower.vit_merger', 'model.merger']),
    'paddleocr_vl': (['model.visual'], ['model.projector']),
    'qwen2_audio': AUDIO,
    'voxtral': AUDIO,
    'qwen3_asr': AUDIO,
    'granite_speech': (['model.encoder'], ['model.projector']),
    'vibevoice_asr': (['model.acoustic_tokenizer_encoder', 'model.semantic_tokenizer_encoder'], PROJECTOR),
    'qwen2_5_omni_thinker': (['model.audio_tower', 'model.visual'], ['model.audio_tower.proj', 'model.visual.merger']),
    'qwen3_omni_moe_thinker': (
        ['model.audio_tower', 'model.visual'],
        ['model.audio_tower.proj1', 'model.audio_tower.proj2', 'model.visual.merger_list', 'model.visual.merger'],
    ),
    'phi4_multimodal': (
        ['model.embed_tokens_extend.image_embed.img_processor', 'model.embed_tokens_extend.audio_embed.encoder'],
        ['model.embed_tokens_extend.image_embed', 'model.embed_tokens_extend.audio_embed'],
    ),
    'janus': (['model.vision_model'], ['model.aligner']),
    'gemma3n': (['model.vision_tower', 'model.audio_tower'], ['model.embed_vision', 'model.embed_audio']),
    'gemma4': (['model.vision_tower', 'model.audio_tower'], ['model.embed_vision', 'model.embed_audio']),
    'aya_vision': USUAL,
    'fast_vlm': USUAL,
    'chameleon': ([], []),
    'emu3': ([], []),
    'qwen3_omni_moe': (
        ['thinker.model.audio_tower', 'thinker.model.visual'],
        [
            'thinker.model.audio_tower.proj1', 'thinker.model.audio_tower.proj2', 'thinker.model.visual.merger_list',
            'thinker.model.visual.merger',
        ],
    ),
}
"""Model type → (paths of towers, paths of the aligner); everything else is the language model or FIXED."""

FIXED_PARTS = {
    'janus': ['model.vqmodel', 'model.generation_embeddings', 'model.generation_aligner', 'model.generation_head'],
    'chameleon': ['model.vqmodel'],
    'emu3': ['model.vqmodel'],
}

SETTINGS = {
    'gemma4': {'vision_config': {'model_type': 'gemma4_vision'}, 'audio_config': {'model_type': 'gemma4_audio'}},
    'chameleon': {'vocabulary_map': {'<image>': 5}},
    'emu3': {'vocabulary_map': {'<image>': 5}},
    'qwen3_omni_moe': {'enable_audio_output': False},
}
"""What the default configuration of a model type lacks."""


def empty(model_type):
    """The model of a default configuration, without weights."""
    name = MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES[model_type]
    config = CONFIG_MAPPING[model_type](**SETTINGS.get(model_type, {}))
    if model_type == 'aya_vision':
        config.vision_config.num_attention_heads = 16
    with torch.device('meta'):
        return getattr(transformers, name)(config)


@pytest.fixture
def without_timm(monkeypatch):
    """A linear layer for towers that another package makes."""
    real = transformers.AutoModel.from_config

    def from_config(config, *args, **kwargs):
        return nn.Sequential(nn.Linear(2, 2)) if 'timm' in config.model_type or 'gemma3n_vision' in config.model_type else real(config, *args, **kwargs)

    monkeypatch.setattr(transformers.AutoModel, 'from_config', staticmethod(from_config))


@pytest.mark.parametrize('model_type', PARTS)
def test_the_parts_of_an_architecture(model_type, without_timm):
    model = empty(model_type)
    parts = parts_of(model)
    assert (parts.paths(VIT), parts.paths(ALIGNER)) == PARTS[model_type]
    assert parts.paths(FIXED) == FIXED_PARTS.get(model_type, [])
    embedding = getattr(model, 'thinker', model).get_input_embeddings()
    (name,) = [name for name, module in model.named_modules() if module is embedding]
    assert parts.of(f'{name}.weight') == LLM
    sizes = dict.fromkeys((LLM, VIT, ALIGNER, FIXED), 0)
    for name, parameter in model.named_parameters():
        sizes[parts.of(name)] += parameter.numel()
    assert sizes[LLM] > 1e6 and sizes[LLM] < sum(sizes.values())


@pytest.mark.slow
@pytest.mark.parametrize('model_type', sorted(set(MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES) - set(PARTS)))
def test_other_architectures_have_a_language_model(model_type):
    try:
        model = empty(model_type)
    except (TypeError, ValueError, KeyError, AttributeError, ImportError, RuntimeError) as error:
        pytest.skip(f'its default configuration makes no model: {str(error)[:80]}')
    parts = parts_of(model)
    assert any(parts.of(name) == LLM for name, _ in model.named_parameters())


def test_names_in_wrapped_models():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(qwen2_vl(), LoraConfig(target_modules=['qkv', 'q_proj'], modules_to_save=['merger']))
    parts = parts_of(model)
    assert parts.of('base_model.model.model.visual.blocks.0.attn.qkv.lora_A.default.weight') == VIT
    assert parts.of('base_model.model.model.visual.merger.modules_to_save.default.mlp.0.weight') == ALIGNER
    assert parts.of('base_model.model.model.language_model.layers.0.self_attn.q_proj.base_layer.weight') == LLM
    assert parts.of('model.visual.merger.ln_q.weight') == ALIGNER  # bare names too
    assert {parts.of(name) for name, _ in model.named_parameters()} == {LLM, VIT, ALIGNER}


def test_a_model_that_says_nothing_is_read_by_names():
    model = nn.Module()
    model.vpm, model.resampler, model.llm, model.vision_model = (nn.Sequential(nn.Linear(2, 2)) for _ in range(4))
    model.mlp1 = nn.Linear(2, 2)
    parts = parts_of(model)
    assert [parts.of(f'{name}.0.weight') for name in ('vpm', 'vision_model', 'resampler', 'mlp1', 'llm')] == [VIT, VIT, ALIGNER, ALIGNER, LLM]


def test_what_no_gradient_reaches():
    model = llava(layers=4)
    assert unreached(model) == ('model.vision_tower.encoder.layers.3', 'model.vision_tower.post_layernorm')
    model.config.vision_feature_layer = [1, -3]
    assert unreached(model)[:2] == ('model.vision_tower.encoder.layers.2', 'model.vision_tower.encoder.layers.3')
    assert unreached(qwen2_vl()) == ()
    assert os.path.isfile(os.path.join(os.path.dirname(unreached.__code__.co_filename), 'parts.json'))
