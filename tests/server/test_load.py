"""Sixty-four clients at once for a minute (SWIFT_LOAD_SECONDS: longer) on `swift deploy --model tiny`: nothing lost, nothing crossed.

Every prompt asks for its own number. One request in eight is malformed. Memory stays flat, the answers together come at least three
times as fast as one at a time, and a signal in the middle lets everything finish that was accepted.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from .test_deploy import free_port, wait_for

CLIENTS = 64
SECONDS = float(os.environ.get('SWIFT_LOAD_SECONDS', '60'))
GROWTH = 60 << 20
"""Bytes that the process may grow after its first seconds: buffers of the allocator, not what was asked."""

WRONG = [
    ({'model': 'other'}, 404), ({'temperature': 'hot'}, 400), ({'messages': []}, 400), ({'mesages': 1}, 400), ({'n': -1}, 400),
    ({'logit_bias': {'5': 1}}, 400), ({'messages': [{'role': 'user', 'content': 'word ' * 3000}]}, 400),
]  # fmt: skip


@pytest.fixture(scope='module')
def numbers(tiny_engine) -> list[str]:
    """Numbers that the model repeats rightly when it is left alone."""
    from swift.infer_engine import RequestConfig

    asked = [str(1000 + 7 * index) for index in range(1285)]
    answers = tiny_engine.infer([{'messages': body(number)['messages']} for number in asked], RequestConfig(max_tokens=8, temperature=0))
    return [number for number, answer in zip(asked, answers, strict=True) if answer.choices[0].message.content == number]


class Tally:
    """What the clients saw."""

    def __init__(self):
        self.right = self.wrong = self.tokens = self.refused = 0
        self.crossed: list[tuple[str, str]] = []
        self.lost: list[str] = []

    def take(self, number: str, text: str, tokens: int) -> None:
        self.tokens += tokens
        if text.startswith(number):
            self.right += 1
            return
        self.wrong += 1
        if sum(a != b for a, b in zip(text, number, strict=False)) > 1:
            self.crossed.append((number, text))  # more than a slip of the model


def body(number: str, **fields) -> dict:
    """Asks for a number, and for what comes after it, so that answers take a while."""
    content = f'Repeat: {number}'
    return {'model': 'tiny', 'messages': [{'role': 'user', 'content': content}], 'temperature': 0, 'max_tokens': 24, 'ignore_eos': True, **fields}


async def post(port: int, fields: dict) -> tuple[int, bytes]:
    """Status and body of the answer, over a connection of its own. Raises OSError where nobody accepts it."""
    data = json.dumps(fields).encode()
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    try:
        head = f'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n'
        writer.write(head.encode() + b'Connection: close\r\n\r\n' + data)
        answer = await asyncio.wait_for(reader.read(-1), 60)
    finally:
        writer.close()
    if not answer:
        raise ConnectionResetError
    return int(answer[9:12]), answer.partition(b'\r\n\r\n')[2]


async def ask(port: int, tally: Tally, number: str, *, stream: bool) -> int:
    """Ask for a number and judge the answer; the status."""
    status, answer = await post(port, body(number, **({'stream': True, 'stream_options': {'include_usage': True}} if stream else {})))
    if status != 200:
        tally.lost.append(f'{status} {answer[:200]}')
    elif stream:
        pieces = [json.loads(line[6:]) for line in answer.decode().splitlines() if line.startswith('data: {')]
        text = ''.join(choice['delta'].get('content') or '' for piece in pieces for choice in piece.get('choices', ()))
        if b'data: [DONE]' not in answer or not pieces[-1].get('usage'):
            tally.lost.append(f'a stream of {number} broke off: {answer[-300:]}')
        else:
            tally.take(number, text, pieces[-1]['usage']['completion_tokens'])
    else:
        found = json.loads(answer)
        tally.take(number, found['choices'][0]['message']['content'], found['usage']['completion_tokens'])
    return status


async def client(port: int, tally: Tally, numbers: list[str], index: int, ends: float) -> None:
    turn = 0
    while time.monotonic() < ends:
        turn += 1
        if (index + turn) % 8 == 0:
            fields, status = WRONG[(index + turn // 8) % len(WRONG)]
            found, answer = await post(port, body('1', **fields))
            if found != status or set(json.loads(answer)) != {'error'}:
                tally.lost.append(f'{fields}: {found} {answer[:200]}')
            tally.refused += 1
        else:
            await ask(port, tally, numbers[(index * 17 + turn) % len(numbers)], stream=bool((index + turn) % 2))


async def load(port: int, tally: Tally, numbers: list[str], clients: int, seconds: float) -> float:
    """Tokens per second of so many clients."""
    started = time.monotonic()
    await asyncio.gather(*(client(port, tally, numbers, index, started + seconds) for index in range(clients)))
    return tally.tokens / (time.monotonic() - started)


@pytest.fixture
def process(tmp_path):
    port, path = free_port(), str(tmp_path / 'answers.jsonl')
    command = [sys.executable, '-m', 'swift', 'deploy', '--model', 'tiny', '--local_only', 'true', '--port', str(port), '--log_interval', '0', '--result_path', path]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    process.port, process.result_path = port, path
    try:
        wait_for(200, port, process)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_many_clients(process, numbers):
    memory = psutil.Process(process.pid).memory_info
    alone, warm, tally = Tally(), Tally(), Tally()
    one = asyncio.run(load(process.port, alone, numbers, 1, 8))
    asyncio.run(load(process.port, warm, numbers, CLIENTS, 8))
    before = memory().rss
    many = asyncio.run(load(process.port, tally, numbers, CLIENTS, SECONDS))
    grown = memory().rss - before
    print(
        f'\n{tally.right + tally.wrong} answers in {SECONDS:g} s, {tally.refused} malformed; {many:.0f} tokens/s by {CLIENTS} clients, '
        f'{one:.0f} by one; grown {grown >> 20} MiB'
    )
    assert not tally.lost and not tally.crossed
    assert tally.right >= 0.99 * (tally.right + tally.wrong)  # a batch rounds otherwise: what stands on a knife's edge may fall
    assert tally.refused > 50
    assert grown < GROWTH
    assert many >= 3 * one


@pytest.mark.slow
def test_a_signal_under_load(process, numbers):
    """Whatever was accepted is answered in full; what comes later is refused, or finds nobody."""
    tally, refused = Tally(), []

    async def one(index: int) -> None:
        for turn in range(10_000):
            try:
                if await ask(process.port, tally, numbers[(index * 17 + turn) % len(numbers)], stream=bool(turn % 2)) == 503:
                    refused.append('shutting_down')
                    return
            except OSError:  # the socket is closed: it was never accepted
                refused.append('gone')
                return

    async def all_of_them() -> None:
        clients = asyncio.gather(*(one(index) for index in range(CLIENTS)))
        await asyncio.sleep(3)
        process.send_signal(signal.SIGTERM)
        await clients

    asyncio.run(all_of_them())
    assert process.wait(20) == 0
    kept = [json.loads(line) for line in open(process.result_path, encoding='utf-8')]
    assert len(kept) == tally.right + tally.wrong  # every answer that was made has arrived
    assert len(refused) == CLIENTS and 'shutting_down' in refused
    assert all(b'shutting_down' in lost.encode() for lost in tally.lost) and not tally.crossed
    assert tally.right >= CLIENTS and tally.right >= 0.99 * (tally.right + tally.wrong)
