"""Tokens per second of answering: our engine beside transformers' own `generate`, in one run on one machine.

    OMP_NUM_THREADS=1 python benchmarks/generate_throughput.py
    python benchmarks/generate_throughput.py --prompts 64 --new_tokens 64 --rounds 3 --json results.json

The model is random (answers mean nothing, their cost does): Qwen3 of 4 M parameters, vocabulary 4,096, float32. All runs
answer the same prompts greedily with the same number of tokens each. Rounds alternate between the ways, so a busy
machine harms all alike; the best round of each counts.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from swift.core.types import Prompt
from swift.infer_engine import RequestConfig, TransformersEngine


class Ids:
    """Stands for a template where prompts are made of ids."""

    class tokenizer:
        """Decoding costs nothing, for all ways alike."""

        all_special_ids: list[int] = []

        @staticmethod
        def decode(ids: list[int], **_: object) -> str:
            """No text."""
            return ''

        @staticmethod
        def get_added_vocab() -> dict[str, int]:
            """No special tokens."""
            return {}


def build_model(device: str, dtype: torch.dtype) -> Qwen3ForCausalLM:
    """A random Qwen3 of 4.2 M parameters."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return Qwen3ForCausalLM(config).to(device, dtype).eval()


def plain(model: Qwen3ForCausalLM, prompts: list[list[int]], new_tokens: int, batch: int) -> int:
    """transformers' generate on left-padded batches; returns the number of tokens generated."""
    made = 0
    for start in range(0, len(prompts), batch):
        rows = prompts[start : start + batch]
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=model.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=model.device)
        out = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=new_tokens)
        made += (out.shape[1] - longest) * len(rows)
    return made


def ours(engine: TransformersEngine, prompts: list[list[int]], config: RequestConfig) -> int:
    """Our engine; returns the number of tokens generated."""
    answers = engine.generate([Prompt(list(row)) for row in prompts], [config] * len(prompts), [None] * len(prompts))
    return sum(len(answer[0].token_ids) for answer in answers)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--prompts', type=int, default=64)
    parser.add_argument('--prompt_tokens', type=int, nargs=2, default=(8, 40), help='shortest and longest prompt')
    parser.add_argument('--new_tokens', type=int, default=64)
    parser.add_argument('--max_batch_size', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--dtype', default='float32')
    parser.add_argument('--json', help='write the figures here')
    args = parser.parse_args()

    rng = random.Random(0)
    model = build_model(args.device, getattr(torch, args.dtype))
    prompts = [[rng.randrange(1, 4096) for _ in range(rng.randint(*args.prompt_tokens))] for _ in range(args.prompts)]
    engine = TransformersEngine(model, template=Ids(), max_batch_size=args.max_batch_size)
    greedy = RequestConfig(max_tokens=args.new_tokens, temperature=0, ignore_eos=True)
    drawn = RequestConfig(max_tokens=args.new_tokens, temperature=1, top_k=50, top_p=0.9, ignore_eos=True)
    few = prompts[: max(1, args.prompts // 16)]
    ways: dict[str, Callable[[], int]] = {
        'transformers generate, one by one': lambda: plain(model, few, args.new_tokens, 1),
        'transformers generate, batches of 32': lambda: plain(model, prompts, args.new_tokens, 32),
        'transformers generate, one batch': lambda: plain(model, prompts, args.new_tokens, args.prompts),
        'swift engine, greedy': lambda: ours(engine, prompts, greedy),
        'swift engine, sampling': lambda: ours(engine, prompts, drawn),
    }
    for run in ways.values():  # warm
        run()
    best: dict[str, float] = {}
    for _ in range(args.rounds):
        for name, run in ways.items():
            start = time.perf_counter()
            made = run()
            best[name] = max(best.get(name, 0.0), made / (time.perf_counter() - start))
    reference = best['transformers generate, batches of 32']
    lengths = sum(map(len, prompts)) / len(prompts)
    print(f'{args.prompts} prompts of {lengths:.0f} tokens on average, {args.new_tokens} new tokens each, {args.device}, '
          f'{args.dtype}, {torch.get_num_threads()} thread(s)')
    for name, speed in best.items():
        print(f'{name:<40} {speed:8.0f} tokens/s   {speed / reference:5.2f} x')
    if args.json:
        with open(args.json, 'w', encoding='utf-8') as file:
            json.dump({'settings': vars(args) | {'json': None}, 'tokens_per_second': best}, file, indent=2)


if __name__ == '__main__':
    main()
