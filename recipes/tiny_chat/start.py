"""Write the untrained tiny-chat: a byte-level BPE tokenizer trained on the recipe's own data, and a random Qwen3."""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

HERE = Path(__file__).parent
# Control tokens are hidden when an answer is decoded; the marks of thinking and tools are part of the answer's text.
CONTROL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
MARKS = ['<think>', '</think>', '<tool_call>', '</tool_call>', '<tools>', '</tools>', '<tool_response>', '</tool_response>']
VOCAB_SIZE = 2048
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def corpus(data: Path):
    """Texts and messages of the training files."""
    with (data / 'pt.jsonl').open(encoding='utf-8') as file:
        for line in islice(file, 20_000):
            yield json.loads(line)['text']
    with (data / 'sft.jsonl').open(encoding='utf-8') as file:
        for line in islice(file, 50_000):
            row = json.loads(line)
            yield from (json.dumps(tool) for tool in row.get('tools', ()))
            for message in row['messages']:
                yield message['role'] + '\n' + message['content']
    yield (HERE / 'chat_template.jinja').read_text(encoding='utf-8')
    yield (HERE / 'words.txt').read_text(encoding='utf-8')


def train_tokenizer(data: Path):
    """A `PreTrainedTokenizerFast`: every digit is a token of its own, any text can be written."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORD), 'isolated'), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(MARKS),
        special_tokens=CONTROL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(data), trainer)
    tokenizer.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in MARKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token='<|im_end|>',
        pad_token='<|endoftext|>',
        chat_template=(HERE / 'chat_template.jinja').read_text(encoding='utf-8').rstrip('\n'),
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer, seed: int):
    """A random Qwen3 of about two million parameters, float32."""
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=48,
        max_position_embeddings=2048,
        initializer_range=0.05,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, required=True, help='folder that generate.py wrote')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--seed', type=int, default=42)
    options = parser.parse_args()
    tokenizer = train_tokenizer(options.data)
    model = build_model(tokenizer, options.seed)
    tokenizer.save_pretrained(options.out)
    model.save_pretrained(options.out)
    print(f'{options.out}: {len(tokenizer)} tokens, {model.num_parameters():,} parameters')


if __name__ == '__main__':
    main()
