"""Serve a checkpoint behind OpenAI's API: `swift deploy` with the flags that fit it.

python deploy_model.py --checkpoint ./output/lora_test/checkpoint-100 --type lora --port 8000 --infer-backend pt
python deploy_model.py --checkpoint ./output/full_test/checkpoint-100 --type full --port 8000
python deploy_model.py --checkpoint ./output/lora_test/checkpoint-100 --served-model-name my-custom-model
python deploy_model.py --type multi-lora --multi-lora-config multi_lora_config.json --port 8000

Without --type the files of the checkpoint tell. Further flags are those of `swift deploy`.
"""

from __future__ import annotations

import argparse
import sys

from inference_test import kind_of

from swift.core.errors import SwiftError


def words_of(known: argparse.Namespace, rest: list[str]) -> list[str]:
    """The words of `swift deploy`. Raises SwiftError for flags that don't fit each other."""
    words = ['--port', str(known.port), '--infer_backend', known.infer_backend, *rest]
    if known.served_model_name:
        words += ['--served_model_name', known.served_model_name]
    if known.type == 'multi-lora' or (known.type is None and known.multi_lora_config):
        if not known.multi_lora_config or known.checkpoint:
            raise SwiftError('--type multi-lora takes its adapters from --multi-lora-config;', 'give that file, and no --checkpoint')
        return ['--adapters', known.multi_lora_config, *words]
    if not known.checkpoint or known.multi_lora_config:
        raise SwiftError('one model is served from --checkpoint;', 'give that, and no --multi-lora-config')
    kind, path = kind_of(known.checkpoint)
    if known.type and known.type != kind:
        raise SwiftError(f'--type {known.type}: {path} is a {kind} checkpoint;', f'write --type {kind}, or leave it out')
    return ['--adapters' if kind == 'lora' else '--model', path, *words]


def main(words: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkpoint', help='directory of a checkpoint, or of a run')
    parser.add_argument('--type', choices=('lora', 'full', 'multi-lora'), help='what is served; without it the files tell')
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument('--infer-backend', '--infer_backend', default='pt', help='pt, vllm, sglang, lmdeploy')
    parser.add_argument('--served-model-name', '--served_model_name', help='name of the model in requests')
    parser.add_argument('--multi-lora-config', '--multi_lora_config', help='JSON file {"name": "checkpoint", …}')
    known, rest = parser.parse_known_args(words)
    try:
        flags = words_of(known, rest)
    except SwiftError as error:
        print(f'deploy_model: error: {error}', file=sys.stderr)
        return 2
    from swift.cli.main import run_command

    return run_command('deploy', flags)


if __name__ == '__main__':
    raise SystemExit(main())
