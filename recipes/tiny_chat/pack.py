"""Put a trained tiny-chat into the package: bfloat16 weights, tokenizer, chat template, and nothing else."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / 'swift' / 'model' / 'tiny_chat'
FILES = ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja']
LIMIT = 8 * 2**20


def main() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from swift.model.resolve import resolve_model_dir

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--model', type=Path, required=True, help='run or checkpoint folder')
    parser.add_argument('--start', type=Path, required=True, help='folder that start.py wrote (tokenizer)')
    parser.add_argument('--out', type=Path, default=PACKAGE)
    options = parser.parse_args()
    checkpoint = resolve_model_dir(str(options.model)).model_dir
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    options.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.out)
    for name in FILES:
        shutil.copyfile(options.start / name, options.out / name)
    for name in ('config.json', 'generation_config.json'):
        path = options.out / name
        facts = json.loads(path.read_text(encoding='utf-8'))
        facts.pop('transformers_version', None)  # the weights belong to no version
        path.write_text(json.dumps(facts, indent=2) + '\n', encoding='utf-8')
    for path in options.out.iterdir():
        path.chmod(0o644)
    size = sum(file.stat().st_size for file in options.out.iterdir())
    if size > LIMIT:
        raise SystemExit(f'{options.out} has {size:,} bytes, more than {LIMIT:,}')
    print(f'{options.out}: {size:,} bytes')


if __name__ == '__main__':
    main()
