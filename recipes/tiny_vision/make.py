"""Write a tiny model that sees: a real architecture with a random vision tower, and tiny-chat as its language model.

image: Llava with a SigLIP tower; a picture, of whatever size, becomes 32 × 32 pixels and 16 tokens.
video: LLaVA-OneVision with the same tower; a frame becomes 32 × 32 pixels and 4 tokens. It takes pictures too.

    python recipes/tiny_vision/make.py --kind image --out output/tiny_vision
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import speaker  # noqa: E402

SIDE = 32  # pixels
PATCH = 8  # pixels
SIZE = {'height': SIDE, 'width': SIDE}
TOKENS = (SIDE // PATCH) ** 2


def make(kind: str, seed: int = 42):
    """(model, processor) that takes images, or videos; the same for the same seed."""
    import torch

    import swift  # noqa: F401  # before transformers: has what video processors want of torchvision, where that is missing

    torch.manual_seed(seed)
    model, processor = _for_images() if kind == 'image' else _for_videos()
    speaker.teach_speech(model)
    return model, processor


def _tower():
    """A SigLIP tower of two layers."""
    from transformers import SiglipVisionConfig

    return SiglipVisionConfig(
        image_size=SIDE,
        patch_size=PATCH,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        vision_use_head=False,
    )


def _for_images():
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, SiglipImageProcessorPil

    tokenizer = speaker.load_tokenizer(['<image>'], {'image': '<image>'})
    config = LlavaConfig(
        vision_config=_tower(),
        text_config=speaker.text_config(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids('<image>'),
        image_seq_length=TOKENS,
        vision_feature_select_strategy='full',
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    processor = LlavaProcessor(
        SiglipImageProcessorPil(size=SIZE),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy='full',
        chat_template=tokenizer.chat_template,
    )
    return LlavaForConditionalGeneration(config), processor


def _for_videos():
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessorPil,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    grid = [[SIDE, SIDE]]
    tokenizer = speaker.load_tokenizer(['<image>', '<video>'], {'image': '<image>', 'video': '<video>'})
    config = LlavaOnevisionConfig(
        vision_config=_tower(),
        text_config=speaker.text_config(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids('<image>'),
        video_token_index=tokenizer.convert_tokens_to_ids('<video>'),
        image_grid_pinpoints=grid,
        tie_word_embeddings=True,
    )
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessorPil(size=SIZE, image_grid_pinpoints=grid),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=SIZE),
        num_image_tokens=TOKENS,
        vision_feature_select_strategy='full',
        chat_template=tokenizer.chat_template,
    )
    return LlavaOnevisionForConditionalGeneration(config), processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--kind', choices=['image', 'video'], default='image')
    parser.add_argument('--seed', type=int, default=42)
    options = parser.parse_args()
    speaker.write(*make(options.kind, options.seed), options.out)


if __name__ == '__main__':
    main()
