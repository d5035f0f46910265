"""Tokens per second of answering rows with a picture each: our engine beside a plain loop over processor and `generate`.

    OMP_NUM_THREADS=1 python benchmarks/media_throughput.py
    OMP_NUM_THREADS=1 python benchmarks/media_throughput.py --rows 64 --side 448 --rounds 3

The model is random (answers mean nothing, their cost does): Qwen2-VL of 6 M parameters with a tower of four layers, float32.
Both ways answer the same rows greedily with the same number of tokens and must give the same ones. Rounds alternate; the best
round of each counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from swift.infer_engine import InferRequest, RequestConfig, TransformersEngine  # noqa: E402
from tests.helpers.vlm import save_vlm  # noqa: E402

TEXT = dict(
    num_hidden_layers=6, hidden_size=256, intermediate_size=768, num_attention_heads=8, num_key_value_heads=4,
    rope_parameters=dict(rope_type='default', mrope_section=[4, 6, 6], rope_theta=1e6),
)  # fmt: skip
TOWER = dict(depth=4, embed_dim=128, num_heads=4, hidden_size=256)
SIZES = dict(size=dict(shortest_edge=3136, longest_edge=10_000_000))


def requests(folder: str, rows: int, side: int) -> list[InferRequest]:
    """Questions of four lengths about noise in three shapes."""
    random, found = np.random.default_rng(0), []
    for row in range(rows):
        height, width = [(side, side), (side * 3 // 2, side), (side, side * 2)][row % 3]
        path = os.path.join(folder, f'{row}.png')
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        found.append(InferRequest([{'role': 'user', 'content': f'<image>describe it {"please " * (row % 4)}'}], images=[path]))
    return found


def plain(model: torch.nn.Module, processor: object, asked: list[InferRequest], tokens: int) -> list[list[int]]:
    """One row after the other, as a script without an engine does it."""
    found = []
    for request in asked:
        parts = [{'type': 'image'}, {'type': 'text', 'text': request.messages[0]['content'].removeprefix('<image>')}]
        text = processor.apply_chat_template([{'role': 'user', 'content': parts}], add_generation_prompt=True)
        inputs = processor(text=[text], images=[Image.open(request.images[0]).convert('RGB')], return_tensors='pt')
        with torch.no_grad():
            made = model.generate(**inputs, max_new_tokens=tokens, eos_token_id=10**6, do_sample=False)
        found.append(made[0, inputs['input_ids'].shape[1] :].tolist())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    for name, value in (('rows', 32), ('new_tokens', 32), ('rounds', 2), ('side', 112), ('max_batch_size', 32)):
        parser.add_argument(f'--{name}', type=int, default=value)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = save_vlm(os.path.join(folder, 'model'), 'qwen2_vl', config=dict(text_config=TEXT, vision_config=TOWER), image_processor=SIZES)
        engine = TransformersEngine(path, max_batch_size=args.max_batch_size)
        asked = requests(folder, args.rows, args.side)
        config = RequestConfig(max_tokens=args.new_tokens, temperature=0, ignore_eos=True, return_details=True)
        best = {'engine': float('inf'), 'plain loop': float('inf')}
        for _ in range(args.rounds):
            started = time.perf_counter()
            answers = engine.infer(asked, config, use_tqdm=False)
            best['engine'] = min(best['engine'], time.perf_counter() - started)
            started = time.perf_counter()
            wanted = plain(engine.model, engine.template.processor, asked, args.new_tokens)
            best['plain loop'] = min(best['plain loop'], time.perf_counter() - started)
        same = sum(answer.choices[0].token_ids == tokens for answer, tokens in zip(answers, wanted, strict=True))
        read = sorted(answer.usage.prompt_tokens for answer in answers)
        print(f'{sum(p.numel() for p in engine.model.parameters()) / 1e6:.1f} M parameters; {args.rows} prompts of {read[0]} to {read[-1]} tokens')
        for name, seconds in best.items():
            print(f'{name:<11}{args.rows * args.new_tokens / seconds:8.0f} tokens/s')
        print(f'{best["plain loop"] / best["engine"]:.1f} times; the same tokens in {same} of {args.rows} rows')


if __name__ == '__main__':
    main()
