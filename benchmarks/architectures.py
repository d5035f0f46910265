"""Every causal architecture of the installed transformers through LoRA: train, save, reload, merge, compare.

    python benchmarks/architectures.py                      # all, one after another
    python benchmarks/architectures.py llama qwen3 mamba    # some
    python benchmarks/architectures.py --part 1/4           # a quarter of them
    python benchmarks/architectures.py --sft                # through `swift sft` instead of the bare tuner
    python benchmarks/architectures.py --table results/*.jsonl > table.md

One JSON line an architecture goes to stdout (or `--out`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import traceback

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('HF_HUB_OFFLINE', '1')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*')
    parser.add_argument('--part', default='1/1', help='which share of the list, such as 2/4')
    parser.add_argument('--out', help='append the JSON lines to this file')
    parser.add_argument('--limit', type=int, default=90, help='seconds for one architecture')
    parser.add_argument('--sft', action='store_true', help='train through swift sft')
    parser.add_argument('--table', nargs='+', help='print a Markdown table from result files')
    parser.add_argument('--debug', action='store_true', help='print tracebacks')
    args = parser.parse_args()
    if args.table:
        print(table([json.loads(line) for path in args.table for line in open(path, encoding='utf-8')]))
        return
    from tests.helpers.architectures import model_types, quiet, sft_trip, trip

    quiet()
    index, count = map(int, args.part.split('/'))
    names = args.names or model_types()[index - 1 :: count]
    passed = 0
    for name in names:
        with tempfile.TemporaryDirectory() as directory:
            result = dict(way='sft' if args.sft else 'lora')
            result |= attempt(name, directory, sft_trip if args.sft else trip, args.limit, args.debug)
        passed += result['ok']
        line = json.dumps(result, ensure_ascii=False)
        if args.out:
            with open(args.out, 'a', encoding='utf-8') as file:
                file.write(line + '\n')
        print(line, flush=True)
    print(f'{passed} of {len(names)} pass', file=sys.stderr)


def attempt(name: str, directory: str, trip, limit: int, debug: bool) -> dict:
    def expire(*_):
        raise TimeoutError(f'more than {limit} s')

    signal.signal(signal.SIGALRM, expire)
    signal.alarm(limit)
    try:
        return dict(model_type=name, ok=True, **trip(name, directory))
    except Exception as error:
        if debug:
            traceback.print_exc()
        return dict(model_type=name, ok=False, error=f'{type(error).__name__}: {" ".join(str(error).split())[:300]}')
    finally:
        signal.alarm(0)


def table(rows: list[dict]) -> str:
    """Markdown: one row an architecture, the last result of each way."""
    last: dict[str, dict[str, dict]] = {}
    for row in rows:
        last.setdefault(row['model_type'], {})[row['way']] = row
    lines = ['| model_type | LoRA | swift sft | reached by all-linear | experts (`--target_parameters`) |', '|---|---|---|---|---|']
    for name in sorted(last):
        lora, sft = last[name].get('lora', {}), last[name].get('sft', {})
        trained = ('yes, padded' if sft['padded'] else 'yes') if sft.get('ok') else reason(sft)
        reach = f'{100 * lora["share"]:.0f} %' if lora.get('ok') else ''
        lines.append(f'| {name} | {"yes" if lora.get("ok") else reason(lora)} | {trained} | {reach} | {" ".join(lora.get("experts", []))} |')
    counts = [sum(bool(ways.get(way, {}).get('ok')) for ways in last.values()) for way in ('lora', 'sft')]
    return '\n'.join([f'{counts[0]} of {len(last)} pass with LoRA, {counts[1]} through `swift sft`.', '', *lines])


def reason(row: dict) -> str:
    return f'no: {row["error"].replace("|", "/")[:160]}' if row else 'not run'


if __name__ == '__main__':
    main()
