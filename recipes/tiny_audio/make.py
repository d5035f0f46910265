"""Write a tiny model that hears: Qwen2-Audio with a random tower, and tiny-chat as its language model.

It takes sounds of up to a second; a second is 25 tokens.

    python recipes/tiny_audio/make.py --out output/tiny_audio
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import speaker  # noqa: E402

SECONDS = 1
RATE = 16000  # samples a second
HOP = 160  # samples
MELS = 80
WINDOW = 1024  # samples; long, so that neighbouring notes fall into different frequencies


def make(seed: int = 42):
    """(model, processor) that takes sounds; the same for the same seed."""
    import torch
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioEncoderConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    sound, first, last = '<|AUDIO|>', '<|audio_bos|>', '<|audio_eos|>'
    tokenizer = speaker.load_tokenizer([sound, first, last], {'audio': first + sound + last})
    tower = Qwen2AudioEncoderConfig(
        num_mel_bins=MELS,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=192,
        d_model=96,
        max_source_positions=SECONDS * RATE // HOP // 2,
    )
    config = Qwen2AudioConfig(
        audio_config=tower,
        text_config=speaker.text_config(tokenizer, tied=False),  # Qwen2-Audio has a head of its own
        audio_token_index=tokenizer.convert_tokens_to_ids(sound),
    )
    features = WhisperFeatureExtractor(
        feature_size=MELS,
        sampling_rate=RATE,
        hop_length=HOP,
        chunk_length=SECONDS,
        n_fft=WINDOW,
        return_attention_mask=True,
    )
    processor = Qwen2AudioProcessor(features, tokenizer, chat_template=tokenizer.chat_template)
    torch.manual_seed(seed)
    model = Qwen2AudioForConditionalGeneration(config)
    speaker.teach_speech(model)
    return model, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--seed', type=int, default=42)
    options = parser.parse_args()
    speaker.write(*make(options.seed), options.out)


if __name__ == '__main__':
    main()
