"""Two tiny models that see, with random weights, and a batch for each: no files, no processor."""

from types import SimpleNamespace

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, Qwen2VLConfig, Qwen2VLForConditionalGeneration

INFO = SimpleNamespace(is_multimodal=True, new_token_ids=(), quant_method=None)
"""What tuners ask of ModelInfo."""

_TEXT = dict(
    hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, vocab_size=64,
    bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip


def llava(layers: int = 3):
    """CLIP (of which the last layer is not used), two linears, Llama."""
    vision = dict(model_type='clip_vision_model', hidden_size=16, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=2,
                  image_size=8, patch_size=4, projection_dim=8)  # fmt: skip
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision, text_config=dict(model_type='llama', **_TEXT), image_token_index=63)
    return LlavaForConditionalGeneration(config)


def qwen2_vl():
    """A tower with its merger inside, positions in three dimensions."""
    vision = dict(depth=2, embed_dim=16, hidden_size=16, num_heads=2, mlp_ratio=2, patch_size=4)
    rope = {'rope_type': 'default', 'mrope_section': [1, 1, 2], 'rope_theta': 10000.0}
    torch.manual_seed(0)
    config = Qwen2VLConfig(text_config=dict(rope_parameters=rope, **_TEXT), vision_config=vision, image_token_id=63, video_token_id=62,
                           vision_start_token_id=61, vision_end_token_id=60)  # fmt: skip
    return Qwen2VLForConditionalGeneration(config)


def batch_for(model):
    """One row with one image of four tokens."""
    draw = torch.Generator().manual_seed(1)
    if model.config.model_type == 'llava':
        return {'input_ids': torch.tensor([[1, 4, 63, 63, 63, 63, 5, 6]]), 'pixel_values': torch.randn(1, 3, 8, 8, generator=draw)}
    ids = torch.tensor([[1, 61, 63, 63, 63, 63, 60, 5, 6]])
    return {'input_ids': ids, 'pixel_values': torch.randn(16, 96, generator=draw), 'image_grid_thw': torch.tensor([[1, 4, 4]]),
            'mm_token_type_ids': (ids == 63).long()}  # fmt: skip


def logits(model):
    """Of that row, in evaluation mode."""
    with torch.no_grad():
        return model.eval()(**batch_for(model)).logits


def backward(model) -> None:
    """Gradients of the language loss on that row."""
    batch = batch_for(model)
    model.train()(**batch, labels=batch['input_ids']).loss.backward()
