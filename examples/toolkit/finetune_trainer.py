"""Fine-tune from a JSON file, from flags, or both (flags win): everything else is `swift sft`.

python finetune_trainer.py --config configs/lora_sft.json
python finetune_trainer.py --model tiny --dataset ../data/arithmetic.jsonl --output_dir ./output/lora_test

All GPUs are used, one process each; CUDA_VISIBLE_DEVICES chooses among them, NPROC_PER_NODE says how many processes there are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from swift.arguments import parse_args
from swift.arguments.config import read_config
from swift.core.errors import SwiftError

DEFAULTS = {'max_length': 2048, 'add_version': False}
"""What the toolkit does otherwise than `swift sft`: rows of 2048 tokens, checkpoints directly in output_dir."""

OVERRULED = {'max_steps': ('num_train_epochs',), 'num_train_epochs': ('max_steps',), 'val_dataset': ('split_dataset_ratio',)}
"""A flag → values of the file that it leaves without effect."""


class FineTuner:
    """One training. `config`: a JSON or YAML file of flags, or a mapping; `flags` win over it."""

    def __init__(self, config: str | dict[str, Any] | None = None, **flags: Any):
        try:
            stored = read_config(config) if isinstance(config, str) else dict(config or {})
        except ValueError as error:
            raise SwiftError(f'--config: {error}') from None
        dropped = {name for flag in flags for name in OVERRULED.get(flag, ())}
        if 'full' in (flags.get('train_type'), flags.get('tuner_type')):
            dropped |= {name for name in stored if name.startswith('lora_')} | {'train_type'}
        given = {**{name: value for name, value in stored.items() if name not in dropped}, **flags}
        self.flags = {**{name: value for name, value in DEFAULTS.items() if name not in given}, **given}

    def run_training(self) -> str | None:
        """Train; the directory of the last checkpoint."""
        args = parse_args('sft', self.flags)  # mistakes are told before processes start
        processes = os.environ.get('NPROC_PER_NODE') or str(_devices())
        if int(processes) > 1 or 'NNODES' in os.environ:
            words = [word for name, value in self.flags.items() for word in _words(name, value)]
            done = subprocess.run([sys.executable, '-m', 'swift', 'sft', *words], env={**os.environ, 'NPROC_PER_NODE': processes})
            if done.returncode:
                raise SwiftError(f'the training ended with exit code {done.returncode};', 'what went wrong is told above')
            from swift.arguments.saved import find_checkpoint

            return find_checkpoint(args.output_dir)
        from swift import sft_main

        return sft_main(args)['last_model_checkpoint']

    def verify_data(self) -> dict[str, int]:
        """Read every row of the data sets without training; how many rows there are. Raises RowError naming the first bad one."""
        from swift.dataset.load import load_dataset

        args = parse_args('sft', {**self.flags, 'strict': True})
        rows = load_dataset(args, seed=args.data_seed, use_hf=args.use_hf, hub_token=args.hub_token, root_image_dir=args.root_image_dir)
        counts = {}
        for name in ('train', 'val'):
            counts[name] = sum(1 for _ in getattr(rows, name) or ())
        print(f'the data is fine: {counts["train"]} rows to train on, {counts["val"]} to validate')
        return counts


def _devices() -> int:
    """GPUs that this process may use."""
    import torch

    return torch.cuda.device_count()


def _words(name: str, value: Any) -> list[str]:
    """A flag as it stands on a command line."""
    if isinstance(value, list):
        return [f'--{name}', *map(str, value)]
    if value is None or isinstance(value, bool):
        value = str(value).lower()
    return [f'--{name}', json.dumps(value) if isinstance(value, dict) else str(value)]


def _flags(words: list[str]) -> dict[str, Any]:
    """`--flag value …` as a mapping; a flag alone is true."""
    flags: dict[str, Any] = {}
    for word in words:
        if word.startswith('--'):
            name, equals, value = word[2:].partition('=')
            values = flags[name.replace('-', '_')] = [value] if equals else []
        elif not flags:
            raise SwiftError(f'{word!r} is not a flag;', f'write --config {word}, or --flag {word}')
        else:
            values.append(word)
    return {name: 'true' if not some else some[0] if len(some) == 1 else some for name, some in flags.items()}


def main(words: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    words = sys.argv[1:] if words is None else words
    if not words or '--help' in words or '-h' in words:
        print(__doc__ + '\nFlags are those of `swift sft --help`; --verify_data reads the data and does not train.')
        return 0
    try:
        flags = _flags(words)
        only_data = flags.pop('verify_data', None)
        tuner = FineTuner(flags.pop('config', None), **flags)
        if only_data:
            tuner.verify_data()
        else:
            print('checkpoint:', tuner.run_training())
    except SwiftError as error:
        for line in str(error).splitlines():
            print(f'finetune_trainer: error: {line}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
