"""Real (unpadded) tokens per second of DPO on pairs of variable length: flat rows, padded rows, and TRL's trainer, in turn.

    python benchmarks/dpo_packed.py [--steps 20] [--rounds 3] [--sigma 0.8] [--tuner lora] [--device cpu]

flat     swift's trainer on flat rows: the segments of a micro-batch end to end, nothing padded
packed   the same with --packing: rows filled up to as many tokens as a micro-batch of the others has on average
padded   swift's trainer with one padded row an answer (--padding_free false)
trl      TRL's DPOTrainer, which pads too (if it can be imported)

All train the same model on the same pairs in float32 (bfloat16 on a GPU) with the adapter switched off (or a frozen copy) as the
reference, and clip gradients. Prompt and both answers of a pair have log-normal lengths; `--sigma` is their spread, the
median is 100 tokens each, a pair has at most 2 × 1,024. Prompts are part of both answers' rows everywhere. Ratios are
medians over the rounds; `cpu` ratios compare processor seconds, which is what counts on a busy machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from functools import partial
from typing import Any

import torch

BATCH, VOCABULARY, LONGEST, MEDIAN = 4, 4096, 1024, 100


def build_model(options: Any):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    size = dict(hidden_size=1024, intermediate_size=3072, num_hidden_layers=16, num_attention_heads=16, num_key_value_heads=8, head_dim=64)
    if options.device == 'cpu':
        size = dict(hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4, head_dim=32)
    config = Qwen3Config(vocab_size=VOCABULARY, tie_word_embeddings=True, max_position_embeddings=4096, pad_token_id=0, **size)
    model = Qwen3ForCausalLM(config).to(options.device)
    return model if options.device == 'cpu' else model.to(torch.bfloat16)


def lora_config():
    from peft import LoraConfig

    return LoraConfig(r=8, lora_alpha=32, lora_dropout=0.0, target_modules='all-linear', task_type='CAUSAL_LM')


def build_pairs(count: int, sigma: float) -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(1)
    sizes = (torch.randn(count, 3, generator=generator) * sigma).exp() * MEDIAN
    sizes = sizes.clamp(8, LONGEST // 2).long().tolist()
    names = ('prompt_ids', 'chosen_ids', 'rejected_ids')
    return [
        {name: torch.randint(3, VOCABULARY, (size,), generator=generator).tolist() for name, size in zip(names, row, strict=True)}
        for row in sizes
    ]


def tokens_of(pairs: list[dict[str, list[int]]]) -> int:
    return sum(2 * len(pair['prompt_ids']) + len(pair['chosen_ids']) + len(pair['rejected_ids']) for pair in pairs)


class Listed(list):
    """Samples as a loader wants them."""

    @property
    def lengths(self) -> list[int]:
        return [len(sample) for sample in self]


def as_samples(pairs: list[dict[str, list[int]]]) -> Listed:
    from swift.core.types import IGNORE_INDEX, Sample

    found = Listed()
    for number, pair in enumerate(pairs):
        answers = [(pair['prompt_ids'], pair[name]) for name in ('chosen_ids', 'rejected_ids')]
        ids = [token for prompt, answer in answers for token in prompt + answer]
        labels = [token for prompt, answer in answers for token in [IGNORE_INDEX] * len(prompt) + answer]
        found.append(Sample(ids, labels, lengths=[len(prompt) + len(answer) for prompt, answer in answers], source=f'pair:{number}'))
    return found


class Watch:
    """Wall and processor seconds since it was made."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def run_swift(pairs: list, options: Any, *, flat: bool, packed: bool = False) -> tuple[float, float]:
    from peft import get_peft_model

    from swift.arguments import parse_args
    from swift.dataset.loader import make_loader
    from swift.objectives import get_objective
    from swift.trainers.factory import build_trainer
    from swift.trainers.forward import ModelActor
    from swift.trainers.selfcheck import plan
    from swift.tuners.switch import adapters_off

    model, samples = build_model(options), as_samples(pairs)
    args = parse_args('rlhf', {
        'model': 'tiny', 'dataset': 'none', 'num_train_epochs': 1, 'per_device_train_batch_size': 1 if packed else BATCH,
        'learning_rate': 1e-4, 'save_strategy': 'no', 'report_to': 'none', 'logging_steps': 10,
    })  # fmt: skip
    if options.tuner == 'lora':
        model = get_peft_model(model, lora_config())
        chosen = plan(model, samples, flat=flat)
        reference = ModelActor(model, chosen, around=adapters_off(model))
    else:
        frozen = copy.deepcopy(model).requires_grad_(False).eval()
        chosen = plan(model, samples, flat=flat)
        reference = ModelActor(frozen, plan(frozen, samples, flat=flat), around=torch.no_grad)
    objective = get_objective('dpo', args)
    row = tokens_of(pairs) * BATCH // len(pairs) if packed else None
    loader = make_loader(
        samples, partial(objective.collate, padded=not flat), batch_size=args.per_device_train_batch_size, packing_length=row, oversize=True,
        shuffle=False,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(model, args, objective, loader, run_dir=folder, plan=chosen, others={'reference': reference})
        watch = Watch()
        trainer.train()
        return watch.read()


def run_trl(pairs: list, options: Any) -> tuple[float, float]:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    from tests.helpers.tiny import build_tokenizer

    class Tokens(DPOTrainer):
        """Pairs come as tokens already."""

        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset

    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            folder, num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=1e-4, save_strategy='no', report_to=[],
            logging_steps=10, max_length=None, gradient_checkpointing=False, bf16=options.device != 'cpu', use_cpu=options.device == 'cpu',
            disable_tqdm=True, disable_dropout=True, lr_scheduler_type='cosine',
        )  # fmt: skip
        trainer = Tokens(
            build_model(options), args=config, train_dataset=Dataset.from_list(pairs), processing_class=build_tokenizer(),
            data_collator=DataCollatorForPreference(pad_token_id=0), peft_config=lora_config() if options.tuner == 'lora' else None,
            ref_model=None if options.tuner == 'lora' else build_model(options),
        )  # fmt: skip
        watch = Watch()
        trainer.train()
        return watch.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--sigma', type=float, default=0.8)
    parser.add_argument('--tuner', choices=['lora', 'full'], default='lora')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs = {
        'flat': partial(run_swift, flat=True),
        'packed': partial(run_swift, flat=True, packed=True),
        'padded': partial(run_swift, flat=False),
    }
    try:
        import trl  # noqa: F401

        runs['trl'] = run_trl
    except ImportError:
        print('trl is not installed: left out', flush=True)
    pairs = build_pairs(options.steps * BATCH, options.sigma)
    tokens = tokens_of(pairs)
    for run in runs.values():
        run(pairs[: 2 * BATCH], options)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            times[name].append(run(pairs, options))
            print(f'{name:7} {tokens / times[name][-1][0]:8.0f} tokens/s', flush=True)
    result: dict[str, Any] = {name: round(tokens / statistics.median(wall for wall, _ in rows)) for name, rows in times.items()}
    for ours in ('flat', 'packed'):
        for other in ('padded', 'trl'):
            for kind, place in (('', 0), (' cpu', 1)):
                if other in times:
                    ratios = [b[place] / a[place] for a, b in zip(times[ours], times[other], strict=True)]
                    result[f'{ours}/{other}{kind}'] = round(statistics.median(ratios), 2)
    longest = [max(len(p['prompt_ids']) + max(len(p['chosen_ids']), len(p['rejected_ids'])) for p in pairs[i : i + BATCH])
               for i in range(0, len(pairs), BATCH)]  # fmt: skip
    result |= {'tuner': options.tuner, 'sigma': options.sigma, 'mean_tokens_a_pair': round(tokens / len(pairs)),
               'padding': f'{1 - tokens / (2 * BATCH * sum(longest)):.0%}'}  # fmt: skip
    print(json.dumps(result))


if __name__ == '__main__':
    from swift.core.startup import loaded

    with loaded('torch', 'transformers.trainer', 'peft'):  # as `swift rlhf` does
        main()
