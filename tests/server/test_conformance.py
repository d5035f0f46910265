"""Requests made up from the server's own description: no 5xx, and nothing that the description does not say."""

import pytest

schemathesis = pytest.importorskip('schemathesis')
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as data  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from swift.infer_engine import RequestConfig  # noqa: E402
from swift.infer_engine.server import Limits, Served, ServedModel, running  # noqa: E402

ROUTES = [
    'POST /v1/chat/completions', 'POST /v1/completions', 'POST /v1/embeddings', 'POST /v1/score', 'POST /v1/rerank', 'GET /v1/models',
    'GET /v1/models/{model}', 'GET /health', 'GET /ping', 'GET /metrics',
]  # fmt: skip
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope='module')
def described(tiny_engine):
    served = Served(
        [ServedModel('tiny', 'tiny')], [''], RequestConfig(max_tokens=4), Limits(running=8, waiting=8, seconds=1.0), engine=tiny_engine
    )
    with running(served) as server:
        yield server


@pytest.fixture(scope='module')
def description(described):
    return schemathesis.openapi.from_url(described.url.replace('/v1', '/openapi.json'))


@pytest.mark.parametrize('label', ROUTES)
def test_made_up_requests(description, label):
    (operation,) = (found.ok() for found in description.get_all_operations() if found.ok().label == label)
    statuses = set()

    @settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=data.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)))
    def ask(case):
        statuses.add(case.call_and_validate(checks=CHECKS, timeout=20).status_code)

    ask()
    assert not statuses & {401, 413, 429} and statuses  # of a server without a key that answers one at a time


def test_the_description_names_every_route(description):
    assert sorted(found.ok().label for found in description.get_all_operations()) == sorted(ROUTES)
