"""The routes of the server and the form of its mistakes. What a route does stands in `chat`, `completions`, `numbers`."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException

import swift
from swift.core.errors import SwiftError, did_you_mean
from swift.infer_engine.server import chat, completions, numbers
from swift.infer_engine.server.errors import KINDS, ApiError, from_swift, from_validation
from swift.infer_engine.server.events import json_response
from swift.infer_engine.server.fields import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    RerankRequest,
    ScoreRequest,
)
from swift.infer_engine.server.gate import Gate
from swift.infer_engine.server.served import Served

_MISTAKE = {
    'type': 'object',
    'required': ['error'],
    'properties': {
        'error': {
            'type': 'object',
            'required': ['message', 'type', 'param', 'code'],
            'properties': {
                'message': {'type': 'string'},
                'type': {'enum': sorted(set(KINDS.values()))},
                'param': {'type': ['string', 'null']},
                'code': {'type': ['string', 'null']},
            },
        }
    },
}
_MEANINGS = {
    400: 'The request is malformed, or asks for something that this server does not do', 401: 'No key, or a wrong one',
    404: 'There is no such model', 408: 'Not done in the time that a request has', 413: 'The body is too large',
    429: 'Too many answers wait already', 503: 'The model is loading, or the server ends',
}  # fmt: skip
_ERRORS = {
    status: {'description': text, 'content': {'application/json': {'schema': _MISTAKE}}} for status, text in _MEANINGS.items()
}
_BODIES = {
    '/v1/chat/completions': ChatRequest, '/v1/completions': CompletionRequest, '/v1/embeddings': EmbeddingRequest,
    '/v1/score': ScoreRequest, '/v1/rerank': RerankRequest,
}  # fmt: skip
_FIELDS = {path: tuple(body.model_fields) for path, body in _BODIES.items()}
_STREAM = {200: {'description': 'The answer, or with "stream": true its pieces', 'content': {'application/json': {}, 'text/event-stream': {}}}}


def build_app(served: Served) -> Any:
    """The ASGI application that serves it."""
    app = FastAPI(title='swift', version=swift.__version__, summary='A model behind the API of OpenAI', docs_url='/docs', redoc_url=None)
    _mistakes(app)
    _about(app, served)
    _answers(app, served)
    app.openapi_schema = _described(app)
    return Gate(app, served)


def _described(app: FastAPI) -> dict[str, Any]:
    """The API's description, without the form of mistakes that the framework would have."""
    described = app.openapi()
    for methods in described['paths'].values():
        for operation in methods.values():
            operation['responses'].pop('422', None)
    for name in ('HTTPValidationError', 'ValidationError'):
        described['components']['schemas'].pop(name, None)
    return described


def _answers(app: FastAPI, served: Served) -> None:
    """The routes that ask the model. A route's function is its name in the API's description."""

    @app.post('/v1/chat/completions', responses={**_STREAM, **_ERRORS})
    async def create_chat_completion(request: ChatRequest) -> Response:
        return await chat.answer(served, request)

    @app.post('/v1/completions', responses={**_STREAM, **_ERRORS})
    async def create_completion(request: CompletionRequest) -> Response:
        return await completions.answer(served, request)

    @app.post('/v1/embeddings', responses=_ERRORS)
    async def create_embedding(request: EmbeddingRequest) -> Response:
        return json_response(await numbers.embeddings(served, request))

    @app.post('/v1/score', responses=_ERRORS)
    async def create_score(request: ScoreRequest) -> Response:
        return json_response(await numbers.scores(served, request))

    @app.post('/v1/rerank', responses=_ERRORS)
    async def create_rerank(request: RerankRequest) -> Response:
        return json_response(await numbers.rerank(served, request))


def _about(app: FastAPI, served: Served) -> None:
    """The routes that tell about the server."""

    @app.get('/v1/models', responses=_errors(401, 503))
    async def list_models() -> Response:
        return json_response({'object': 'list', 'data': [_listed(served, model) for model in served.models]})

    @app.get('/v1/models/{model:path}', responses=_errors(401, 404, 503))
    async def retrieve_model(model: str) -> Response:
        return json_response(_listed(served, served.model(model)))

    @app.get('/health', responses=_errors(503))
    async def health() -> Response:
        if served.ready and not served.draining:
            return json_response({'status': 'ok'})
        return json_response({'status': 'draining' if served.draining else 'loading'}, 503)

    @app.get('/ping', responses=_errors(503))
    async def ping() -> Response:
        return await health()

    @app.get('/metrics', response_class=PlainTextResponse)
    async def metrics() -> Response:
        return PlainTextResponse(served.metrics.text(), media_type='text/plain; version=0.0.4')


def _errors(*statuses: int) -> dict[int, Any]:
    return {status: _ERRORS[status] for status in statuses}


def _listed(served: Served, model: Any) -> dict[str, Any]:
    parent = served.models[0].name if model.adapter else None
    length = served.engine.max_model_len if served.engine else None
    return {
        'id': model.name, 'object': 'model', 'created': served.created, 'owned_by': served.owned_by, 'root': model.root, 'parent': parent,
        'max_model_len': length,
    }  # fmt: skip



def _mistakes(app: FastAPI) -> None:
    """Every mistake comes out in one form."""

    def shaped(error: ApiError) -> Response:
        return Response(json.dumps(error.body, ensure_ascii=False).encode(), error.status, error.headers, 'application/json')

    @app.exception_handler(ApiError)
    async def ours(_: Request, error: ApiError) -> Response:
        return shaped(error)

    @app.exception_handler(SwiftError)
    async def of_the_engine(_: Request, error: SwiftError) -> Response:
        return shaped(from_swift(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        return shaped(from_validation(error.errors(), _FIELDS.get(request.url.path, ())))

    @app.exception_handler(HTTPException)
    async def of_the_framework(request: Request, error: HTTPException) -> Response:
        message = str(error.detail)
        if error.status_code == 404:
            paths = sorted({route.path for route in app.routes})
            message = f'there is no {request.url.path:.200}; {did_you_mean(request.url.path, paths) or "see /docs"}'
        elif error.status_code == 405:
            message = f'{request.url.path} does not take {request.method}'
        return shaped(ApiError(error.status_code, message, headers=error.headers))

    @app.exception_handler(Exception)
    async def of_ours(_: Request, error: Exception) -> Response:
        return shaped(ApiError(500, 'the server made a mistake; its log says which', code='internal_error'))
