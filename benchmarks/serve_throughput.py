"""Tokens per second of a served model, by number of clients that ask at once.

    OMP_NUM_THREADS=1 python benchmarks/serve_throughput.py
    python benchmarks/serve_throughput.py --clients 1 16 64 --new_tokens 64 --stream --json results.json
    python benchmarks/serve_throughput.py --url http://127.0.0.1:8000/v1 --model NAME     # a server that runs already

The model is random: Qwen3 of 4 M parameters, vocabulary 4,096, float32 (that of generate_throughput.py), behind its own server in a
process of its own, with one thread. Every client asks `--requests` times in a row, each time for `--new_tokens` tokens after
another prompt of token ids. `engine` is the same work without HTTP. The best of `--rounds` counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import time

from generate_throughput import Ids, build_model


class Tokenizer(Ids.tokenizer):
    """Ids as text, so that streams have something to show."""

    def __len__(self) -> int:
        return 4096

    @staticmethod
    def decode(ids: list[int], **_: object) -> str:
        """One letter a token."""
        return ''.join(chr(97 + i % 26) for i in ids)


class Template:
    """Stands for a template where prompts are made of ids."""

    tokenizer = Tokenizer()


def engine(max_batch_size: int):
    """The engine that is measured."""
    import torch

    from swift.infer_engine import TransformersEngine

    return TransformersEngine(build_model('cpu', torch.float32), template=Template(), max_batch_size=max_batch_size)


def serve(max_batch_size: int, port, threads: int) -> None:
    """Run the server; its port goes through the queue `port`."""
    import torch

    from swift.infer_engine.server import Limits, Served, ServedModel, Server

    torch.set_num_threads(threads)
    served = Served([ServedModel('bench')], limits=Limits(running=max_batch_size, seconds=None), engine=engine(max_batch_size))
    server = Server(served)
    server.settle()
    port.put(server.port)
    server.run(signals=True)


def prompts(count: int) -> list[list[int]]:
    """Prompts of 8 to 40 ids."""
    rng = random.Random(0)
    return [[rng.randrange(1, 4096) for _ in range(rng.randint(8, 40))] for _ in range(count)]


async def ask(host: str, port: int, body: bytes, path: str) -> int:
    """One request over a connection of its own, and the tokens that its answer counts."""
    reader, writer = await asyncio.open_connection(host, port)
    head = f'POST {path}/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n'
    writer.write(head.encode() + b'Connection: close\r\n\r\n' + body)
    answer = await reader.read(-1)
    writer.close()
    if b' 200 ' not in answer[:20]:
        raise SystemExit(answer[:500].decode(errors='replace'))
    usage = answer.rpartition(b'"completion_tokens":')[2]
    return int(usage.lstrip().split(b',')[0].split(b'}')[0])


async def measure(args: argparse.Namespace, host: str, port: int, path: str, clients: int) -> float:
    """Tokens per second of so many clients."""
    todo = iter(prompts(clients * args.requests))

    async def client() -> int:
        made = 0
        for _ in range(args.requests):
            body = {'model': args.model, 'prompt': next(todo), 'max_tokens': args.new_tokens, 'temperature': 0, 'ignore_eos': True}
            if args.stream:
                body |= {'stream': True, 'stream_options': {'include_usage': True}}
            made += await ask(host, port, json.dumps(body).encode(), path)
        return made

    start = time.perf_counter()
    made = sum(await asyncio.gather(*(client() for _ in range(clients))))
    return made / (time.perf_counter() - start)


def alone(args: argparse.Namespace, clients: int, answering) -> float:
    """Tokens per second of the engine itself on as many prompts at once."""
    from swift.core.types import Prompt
    from swift.infer_engine import RequestConfig

    config = RequestConfig(max_tokens=args.new_tokens, temperature=0, ignore_eos=True)
    rows = [Prompt(ids) for ids in prompts(clients * args.requests)]
    start, made = time.perf_counter(), 0
    for index in range(0, len(rows), clients):
        some = rows[index : index + clients]
        made += sum(len(found[0].token_ids) for found in answering.generate(some, [config] * len(some), [None] * len(some)))
    return made / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--clients', type=int, nargs='+', default=[1, 16, 64])
    parser.add_argument('--requests', type=int, default=2, help='of each client, one after the other')
    parser.add_argument('--new_tokens', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--max_batch_size', type=int, default=64)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--stream', action='store_true', help='answers token by token')
    parser.add_argument('--url', help='of a server that runs already')
    parser.add_argument('--model', default='bench')
    parser.add_argument('--json', help='write the figures here')
    args = parser.parse_args()

    process, answering, path = None, None, '/v1'
    if args.url:
        address, _, path = args.url.removeprefix('http://').partition('/')
        host, port, path = address.split(':')[0], int(address.split(':')[1]), f'/{path.rstrip("/")}'
    else:
        context = multiprocessing.get_context('spawn')
        told = context.Queue()
        process = context.Process(target=serve, args=(args.max_batch_size, told, args.threads))
        process.start()
        host, port = '127.0.0.1', told.get(timeout=120)
        import torch

        torch.set_num_threads(args.threads)
        answering = engine(args.max_batch_size)
    best: dict[str, float] = {}
    try:
        asyncio.run(measure(args, host, port, path, max(args.clients)))  # warm
        for _ in range(args.rounds):
            for clients in args.clients:
                ways = {f'served, {clients} clients': lambda n=clients: asyncio.run(measure(args, host, port, path, n))}
                if answering:
                    ways[f'engine, {clients} at once'] = lambda n=clients: alone(args, n, answering)
                for name, way in ways.items():
                    best[name] = max(best.get(name, 0.0), way())
    finally:
        if process:
            process.terminate()
            process.join(30)
    print(f'{args.new_tokens} new tokens each, {"streamed" if args.stream else "whole"}, {args.threads} thread(s), {os.cpu_count()} cores')
    for name, speed in sorted(best.items()):
        print(f'{name:<24} {speed:8.0f} tokens/s')
    if args.json:
        with open(args.json, 'w', encoding='utf-8') as file:
            json.dump({'settings': vars(args) | {'json': None}, 'tokens_per_second': best}, file, indent=2)


if __name__ == '__main__':
    main()
