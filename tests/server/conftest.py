"""A server in this process: the model that comes with the package, and OpenAI's own client."""

import json
import urllib.error
import urllib.request

import pytest


@pytest.fixture(scope='session')
def tiny_engine():
    from swift.infer_engine import TransformersEngine

    return TransformersEngine('tiny')


@pytest.fixture(scope='session')
def served(tiny_engine):
    from swift.infer_engine.server import Limits, Served, ServedModel

    return Served([ServedModel('tiny', 'tiny')], ['swift/tiny'], limits=Limits(logprobs=5, body=1 << 20), engine=tiny_engine)


@pytest.fixture(scope='session')
def server(served):
    from swift.infer_engine.server import running

    with running(served) as server:
        yield server


@pytest.fixture(scope='session')
def client(server):
    from openai import OpenAI

    return OpenAI(api_key='EMPTY', base_url=server.url, max_retries=0, timeout=60)


@pytest.fixture(scope='session')
def call(server):
    """`call(path, body) → (status, JSON)`; a body that is bytes goes out as it is, None is a GET."""
    return caller(server)


def caller(server):
    def call(path, body=None, headers=None, method=None):
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        url = server.url.removesuffix('/v1') + path
        request = urllib.request.Request(url, data, {'Content-Type': 'application/json', **(headers or {})}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, content, kind = answer.status, answer.read(), answer.headers['Content-Type']
        except urllib.error.HTTPError as error:
            status, content, kind = error.code, error.read(), error.headers['Content-Type']
        return status, json.loads(content) if kind == 'application/json' else content.decode()

    return call


def say(text: str, **fields) -> dict:
    """The body of a request for a greedy answer."""
    return {'model': 'tiny', 'messages': [{'role': 'user', 'content': text}], 'max_tokens': 32, 'temperature': 0, **fields}
