"""Write a tiny model that sees: a real architecture with a random vision tower, and tiny-chat as its language model.

image: Llava with a SigLIP tower, an image of 32 × 32 pixels is 16 tokens.
video: LLaVA-OneVision with the same tower, a frame of 32 × 32 pixels is 4 tokens; it takes images too.

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


def vision_config():
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


def make_image():
    """(model, processor) for images."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, SiglipImageProcessorPil

    tokenizer = speaker.load_tokenizer(['<image>'], {'image': '<image>'})
    config = LlavaConfig(
        vision_config=vision_config(),
        text_config=speaker.text_config(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids('<image>'),
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy='full',
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    images = SiglipImageProcessorPil(size={'height': SIDE, 'width': SIDE})
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy='full',
        chat_template=tokenizer.chat_template,
    )
    return LlavaForConditionalGeneration(config), processor


def make_video():
    """(model, processor) for videos and images."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessorPil,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    size, grid = {'height': SIDE, 'width': SIDE}, [[SIDE, SIDE]]
    tokenizer = speaker.load_tokenizer(['<image>', '<video>'], {'image': '<image>', 'video': '<video>'})
    config = LlavaOnevisionConfig(
        vision_config=vision_config(),
        text_config=speaker.text_config(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids('<image>'),
        video_token_index=tokenizer.convert_tokens_to_ids('<video>'),
        image_grid_pinpoints=grid,
        tie_word_embeddings=True,
    )
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessorPil(size=size, image_grid_pinpoints=grid),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(SIDE // PATCH) ** 2,
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

    import torch

    import swift  # noqa: F401  # its image transforms stand in for torchvision's, where that is not installed

    torch.manual_seed(options.seed)
    model, processor = make_image() if options.kind == 'image' else make_video()
    speaker.teach_speech(model)
    speaker.write(model, processor, options.out)


if __name__ == '__main__':
    main()
