"""What requests save by sharing: adapters in one forward, a system prompt that is read once.

    OMP_NUM_THREADS=1 python benchmarks/shared_work.py
    python benchmarks/shared_work.py --requests 64 --adapters 8 --rank 16 --system_tokens 1000 --json results.json

The model is that of generate_throughput.py: a random Qwen3 of 4 M parameters, float32. Rounds alternate between the ways, so a busy
machine harms all alike; the best round of each counts. Tokens per second are those of the answers, `--new_tokens` each.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import tempfile
import time

import torch
from generate_throughput import Ids, build_model

from swift.core.types import Prompt
from swift.infer_engine import AdapterRequest, RequestConfig, TransformersEngine


def make_adapters(model, count: int, rank: int, root: str) -> list[AdapterRequest]:
    """Random LoRA adapters of all linear layers."""
    from peft import LoraConfig, get_peft_model

    made = []
    for index in range(count):
        torch.manual_seed(index)
        peft = get_peft_model(copy.deepcopy(model), LoraConfig(r=rank, target_modules='all-linear', init_lora_weights=False))
        peft.save_pretrained(f'{root}/{index}')
        made.append(AdapterRequest(f'adapter-{index}', f'{root}/{index}'))
    return made


def best_of(ways: dict, rounds: int) -> dict[str, float]:
    """Tokens per second of the best round of each way; the first call of each warms it."""
    best: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            speed = way() / (time.perf_counter() - start)
            best[name] = max(best.get(name, 0.0), speed) if turn else 0.0
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--requests', type=int, default=64)
    parser.add_argument('--new_tokens', type=int, default=64)
    parser.add_argument('--adapters', type=int, default=8)
    parser.add_argument('--rank', type=int, default=16)
    parser.add_argument('--system_tokens', type=int, default=1000)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--json', help='write the figures here')
    args = parser.parse_args()

    rng = random.Random(0)
    model = build_model(args.device, torch.float32)
    config = RequestConfig(max_tokens=args.new_tokens, temperature=0, ignore_eos=True)
    prompts = [[rng.randrange(1, 4096) for _ in range(rng.randint(8, 40))] for _ in range(args.requests)]
    system = [rng.randrange(1, 4096) for _ in range(args.system_tokens)]

    def engine(**settings) -> TransformersEngine:
        return TransformersEngine(copy.deepcopy(model), template=Ids(), max_batch_size=args.requests, **settings)

    def answer(answering: TransformersEngine, rows: list[list[int]], adapters: list) -> int:
        found = answering.generate([Prompt(list(row)) for row in rows], [config] * len(rows), adapters)
        return sum(len(choices[0].token_ids) for choices in found)

    def in_turn(answering: TransformersEngine, adapters: list) -> int:
        return sum(answer(answering, prompts[i :: len(adapters)], [a] * len(prompts[i :: len(adapters)])) for i, a in enumerate(adapters))

    with tempfile.TemporaryDirectory() as root:
        several = make_adapters(model, args.adapters, args.rank, root)
        mixed = (several * args.requests)[: args.requests]
        bare, dressed, without, known = engine(), engine(), engine(prefix_cache_tokens=0), engine(weights_stay=True)
        long = [system + row for row in prompts]
        nobody = [None] * args.requests
        best = best_of(
            {
                'no adapter': lambda: answer(bare, prompts, nobody),
                'one adapter': lambda: answer(dressed, prompts, several[:1] * args.requests),
                f'{args.adapters} adapters in one batch': lambda: answer(dressed, prompts, mixed),
                f'{args.adapters} adapters, one after the other': lambda: in_turn(dressed, several),
                f'{args.system_tokens} tokens in common, each read again': lambda: answer(without, long, nobody),
                f'{args.system_tokens} tokens in common, read once': lambda: answer(bare, long, nobody),
                f'{args.system_tokens} tokens in common, known already': lambda: answer(known, long, nobody),
            },
            args.rounds,
        )
    print(f'{args.requests} requests, {args.new_tokens} new tokens each, {args.device}, {torch.get_num_threads()} thread(s)')
    for name, speed in best.items():
        print(f'{name:<44} {speed:8.0f} tokens/s')
    if args.json:
        with open(args.json, 'w', encoding='utf-8') as file:
            json.dump({'settings': vars(args) | {'json': None}, 'tokens_per_second': best}, file, indent=2)


if __name__ == '__main__':
    main()
