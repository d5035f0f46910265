"""Rows per second from messages to labelled tokens, on one core, beside transformers' apply_chat_template row by row.

    python benchmarks/tokenize_rows.py [--rows 20000] [--template chatml|thinking]

Random conversations of one to three rounds, about 175 tokens each, with a byte-level tokenizer of 4,096 tokens. The
comparison renders and tokenises only; it finds no labels.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path

os.environ['TOKENIZERS_PARALLELISM'] = 'false'
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SPECIALS = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']


def vocabulary(rng: random.Random) -> list[str]:
    syllables = [a + b for a in 'bcdfghjklmnprstvwz' for b in 'aeiou']
    return [''.join(rng.choices(syllables, k=rng.randint(1, 3))) for _ in range(3000)]


def sentence(rng: random.Random, words: list[str], size: int) -> str:
    return ' '.join(rng.choices(words, k=size)).capitalize() + rng.choice('.?!')


def build_tokenizer(rng: random.Random, words: list[str], chat_template: str):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([sentence(rng, words, 200) for _ in range(300)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token='<|im_end|>', pad_token='<|endoftext|>', chat_template=chat_template
    )


def conversations(rng: random.Random, words: list[str], rows: int) -> list[list[dict]]:
    out = []
    for _ in range(rows):
        messages = []
        for _ in range(rng.choice([1, 1, 2, 3])):
            messages.append({'role': 'user', 'content': sentence(rng, words, rng.randint(5, 40))})
            messages.append({'role': 'assistant', 'content': sentence(rng, words, rng.randint(10, 80))})
        out.append(messages)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rows', type=int, default=20_000)
    parser.add_argument('--template', choices=['chatml', 'thinking'], default='chatml')
    options = parser.parse_args()
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    from swift.core.types import Conversation
    from swift.template import get_template
    from tests.template.cases import source

    rng = random.Random(0)
    words = vocabulary(rng)
    tokenizer = build_tokenizer(rng, words, source(options.template))
    data = conversations(rng, words, options.rows)
    template = get_template(tokenizer, loss_scale='last_round')
    rows = [Conversation(messages) for messages in data]

    start, cpu = time.perf_counter(), time.process_time()
    tokens = 0
    for i in range(0, len(rows), 1000):
        for result in template.encode_batch(rows[i : i + 1000]):
            tokens += sum(len(sample) for sample in result)
    ours, ours_cpu = time.perf_counter() - start, time.process_time() - cpu

    part = data[: max(1, len(data) // 5)]
    start, cpu = time.perf_counter(), time.process_time()
    for messages in part:
        tokenizer.apply_chat_template(messages, tokenize=True)
    plain, plain_cpu = time.perf_counter() - start, time.process_time() - cpu

    print(f'{len(rows)} rows, {tokens / len(rows):.0f} tokens each, template {options.template}, one core')
    print(f'encode_batch with labels:        {len(rows) / ours:8.0f} rows/s  ({len(rows) / ours_cpu:.0f} by CPU time)')
    print(
        f'apply_chat_template, no labels:  {len(part) / plain:8.0f} rows/s  ({len(part) / plain_cpu:.0f} by CPU time)'
    )
    print(f'ratio: {(len(rows) / ours_cpu) / (len(part) / plain_cpu):.2f}')


if __name__ == '__main__':
    main()
