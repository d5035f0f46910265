"""Peak memory of a DPO step over a large vocabulary: one pair of 2 × 1,000 tokens, 151,936 words, nearly all tokens labelled.

    python benchmarks/dpo_memory.py [--device cpu]

lora         swift, adapter r = 8, the adapter switched off as the reference
full         swift, the whole model, a frozen copy as the reference
precomputed  swift, the whole model, the reference's log-probabilities stored in advance
trl-lora, trl-full   TRL's DPOTrainer the same way (if it can be imported)

Each runs in a process of its own, two steps in float32 (bfloat16 on a GPU). Printed: the peak of the whole process (of the
device's memory on a GPU), and what is left of it without the program and the weights of the policy. A float32 matrix of all tokens by all words
would be 1.2 GB. The model has 4 layers and 42 M parameters, most of them embeddings.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
import tempfile
from functools import partial
from typing import Any

import torch
from dpo_packed import as_samples, lora_config

VOCABULARY, PROMPT, ANSWER, STEPS = 151_936, 50, 950, 2
NAMES = ('lora', 'full', 'precomputed', 'trl-lora', 'trl-full')


def build_model(device: str):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4,
        head_dim=32, tie_word_embeddings=True, max_position_embeddings=4096, pad_token_id=0,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).to(device)
    return model if device == 'cpu' else model.to(torch.bfloat16)


def build_pairs(count: int) -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(1)
    sizes = {'prompt_ids': PROMPT, 'chosen_ids': ANSWER, 'rejected_ids': ANSWER}
    return [{name: torch.randint(3, VOCABULARY, (size,), generator=generator).tolist() for name, size in sizes.items()} for _ in range(count)]


def peak(device: str) -> float:
    """MiB."""
    if device != 'cpu':
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_swift(name: str, device: str) -> None:
    from peft import get_peft_model

    from swift.arguments import parse_args
    from swift.dataset.loader import make_loader
    from swift.objectives import get_objective
    from swift.trainers.factory import build_trainer
    from swift.trainers.forward import ModelActor
    from swift.trainers.selfcheck import plan
    from swift.tuners.switch import adapters_off

    model, samples = build_model(device), as_samples(build_pairs(STEPS))
    args = parse_args('rlhf', {
        'model': 'tiny', 'dataset': 'none', 'num_train_epochs': 1, 'per_device_train_batch_size': 1, 'learning_rate': 1e-4,
        'save_strategy': 'no', 'report_to': 'none', 'logging_steps': 1,
    })  # fmt: skip
    others: dict[str, Any] = {}
    if name == 'lora':
        model = get_peft_model(model, lora_config())
        others['reference'] = ModelActor(model, plan(model, samples), around=adapters_off(model))
    elif name == 'full':
        frozen = copy.deepcopy(model).requires_grad_(False).eval()
        others['reference'] = ModelActor(frozen, plan(frozen, samples), around=torch.no_grad)
    else:
        for sample in samples:
            sample.extra = {'reference_logps': torch.full((2 * ANSWER,), -12.0)}
    objective = get_objective('dpo', args)
    loader = make_loader(samples, partial(objective.collate, padded=False), batch_size=1, shuffle=False)
    with tempfile.TemporaryDirectory() as folder:
        build_trainer(model, args, objective, loader, run_dir=folder, plan=plan(model, samples), others=others).train()


def run_trl(name: str, device: str) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    from tests.helpers.tiny import build_tokenizer

    class Tokens(DPOTrainer):
        """Pairs come as tokens already."""

        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset

    lora = name == 'trl-lora'
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            folder, num_train_epochs=1, per_device_train_batch_size=1, learning_rate=1e-4, save_strategy='no', report_to=[], logging_steps=1,
            max_length=None, gradient_checkpointing=False, bf16=device != 'cpu', use_cpu=device == 'cpu', disable_tqdm=True,
        )  # fmt: skip
        Tokens(
            build_model(device), args=config, train_dataset=Dataset.from_list(build_pairs(STEPS)), processing_class=build_tokenizer(),
            data_collator=DataCollatorForPreference(pad_token_id=0), peft_config=lora_config() if lora else None,
            ref_model=None if lora else build_model(device),
        ).train()  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--only', choices=NAMES, help='run one of them in this process')
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only:
        import swift.trainers.factory  # noqa: F401

        if 'trl' in options.only:
            import trl.trainer.dpo_trainer  # noqa: F401
        model = build_model(options.device)
        start = peak(options.device)
        del model
        (run_trl if 'trl' in options.only else run_swift)(options.only, options.device)
        print(json.dumps({'run': options.only, 'peak_MiB': round(peak(options.device)), 'beyond_MiB': round(peak(options.device) - start)}))
        return
    for name in NAMES:
        done = subprocess.run([sys.executable, __file__, '--device', options.device, '--only', name], capture_output=True, text=True)
        print(done.stdout.splitlines()[-1] if done.returncode == 0 else f'{name}: {done.stderr.splitlines()[-1]}', flush=True)


if __name__ == '__main__':
    main()
