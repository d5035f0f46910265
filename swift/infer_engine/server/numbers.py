"""POST /v1/embeddings, /v1/score, /v1/rerank: models that answer with numbers."""

from __future__ import annotations

import base64
import struct
import uuid
from collections.abc import Sequence
from typing import Any

from swift.core.errors import SwiftError
from swift.core.types import Conversation, Message
from swift.infer_engine.server.chat import as_said
from swift.infer_engine.server.errors import ApiError, from_swift
from swift.infer_engine.server.fields import EmbeddingRequest, RerankRequest, ScoreRequest, refuse
from swift.infer_engine.server.scoring import ScoreQueue
from swift.infer_engine.server.served import Served

RERANKERS = ('reranker', 'generative_reranker')
SCORERS = ('seq_cls', 'token_cls', 'rm', *RERANKERS, 'embedding')


async def embeddings(served: Served, request: EmbeddingRequest) -> dict[str, Any]:
    """A vector of length 1 for every text. `dimensions`: the first so many numbers, made length 1 again."""
    queue = served.scorer('/v1/embeddings', ('embedding',))
    model = served.model(request.model)
    refuse(request)
    texts = _texts(queue, request.input)
    results = await _asked(served, queue, [_text(queue, text) for text in texts], 'input')
    vectors = [_shortened(result['response'], request.dimensions) for result in results]
    return {
        'object': 'list',
        'data': [{'object': 'embedding', 'index': i, 'embedding': _encoded(v, request.encoding_format)} for i, v in enumerate(vectors)],
        'model': model.name,
        'usage': _usage(served, queue, texts),
    }


async def scores(served: Served, request: ScoreRequest) -> dict[str, Any]:
    """A number for every text, pair of texts, or conversation; what it means is the model's task."""
    queue = served.scorer('/v1/score', SCORERS)
    model = served.model(request.model)
    refuse(request)
    if queue.task in (*RERANKERS, 'embedding'):
        first, second = _pairs(request)
        talks = [Conversation([_user(one)], positives=[[_user(other)]]) for one, other in zip(first, second, strict=True)]
        results = await _asked(served, queue, talks, 'text_2')
        values = [result['similarities'][0] if queue.task == 'embedding' else result['response'][0] for result in results]
        data = [{'index': index, 'object': 'score', 'score': value} for index, value in enumerate(values)]
        return _scored(model.name, data, _usage(served, queue, [*first, *second]))
    talks, texts = _judged(queue, request)
    results = await _asked(served, queue, talks, 'messages' if request.messages else 'text_1')
    data = [{'index': index, 'object': 'score', **_meant(result)} for index, result in enumerate(results)]
    return _scored(model.name, data, _usage(served, queue, texts))


async def rerank(served: Served, request: RerankRequest) -> dict[str, Any]:
    """The documents with the probability that each answers the query, best first."""
    queue = served.scorer('/v1/rerank', (*RERANKERS, 'embedding'))
    model = served.model(request.model)
    talk = Conversation([_user(request.query)], positives=[[_user(text)] for text in request.documents])
    (result,) = await _asked(served, queue, [talk], 'documents')
    values = result['similarities'] if queue.task == 'embedding' else result['response']
    order = result.get('ranking') or sorted(range(len(values)), key=lambda index: -values[index])
    ranked = [{'index': index, 'relevance_score': values[index]} for index in order[: request.top_n]]
    if request.return_documents is not False:
        ranked = [{**item, 'document': {'text': request.documents[item['index']]}} for item in ranked]
    usage = _usage(served, queue, [request.query, *request.documents])
    return {'id': f'rerank-{uuid.uuid4().hex}', 'model': model.name, 'results': ranked, 'usage': usage}


# ---- requests → conversations


def _user(text: str) -> Message:
    return {'role': 'user', 'content': text}


def _text(queue: ScoreQueue, text: str) -> Conversation:
    return Conversation([_user(text)], columns={'tokens': text.split()} if queue.task == 'token_cls' else {})


def _texts(queue: ScoreQueue, given: Any) -> list[str]:
    """Texts, also where ids of tokens were sent."""
    many = isinstance(given, list) and not isinstance(given[0], int)
    texts = []
    for item in given if many else [given]:
        if not isinstance(item, str):
            if any(i >= len(queue.tokenizer) for i in item):
                raise ApiError(400, 'input: a token is none that the model has', param='input', code='invalid_value')
            item = queue.tokenizer.decode(item)
        if not item:
            raise ApiError(400, 'input: a text is empty', param='input', code='invalid_value')
        texts.append(item)
    return texts


def _pairs(request: ScoreRequest) -> tuple[list[str], list[str]]:
    if request.text_1 is None or request.text_2 is None:
        name = 'text_1' if request.text_1 is None else 'text_2'
        raise ApiError(400, f'{name}: the model compares two texts', param=name, code='missing_field')
    first = [request.text_1] if isinstance(request.text_1, str) else request.text_1
    second = [request.text_2] if isinstance(request.text_2, str) else request.text_2
    first = first * len(second) if len(first) == 1 else first
    if len(first) != len(second):
        raise ApiError(400, f'text_2: {len(second)} texts for {len(first)} in text_1', param='text_2', code='invalid_value')
    return first, second


def _judged(queue: ScoreQueue, request: ScoreRequest) -> tuple[list[Conversation], list[str]]:
    """Conversations whose answers are judged, or texts of which each has a class; and the texts in them."""
    if request.messages is not None:
        messages = [as_said(message) for message in request.messages]
        return [Conversation(messages)], [str(message.get('content') or '') for message in messages]
    if queue.task == 'rm':
        first, second = _pairs(request)
        return [
            Conversation([_user(one), {'role': 'assistant', 'content': other}]) for one, other in zip(first, second, strict=True)
        ], [*first, *second]
    if request.text_1 is None or request.text_2 is not None:
        raise ApiError(400, 'text_1: the model judges single texts: send text_1 alone', param='text_1', code='invalid_value')
    texts = [request.text_1] if isinstance(request.text_1, str) else request.text_1
    return [_text(queue, text) for text in texts], texts


# ---- results → JSON


async def _asked(served: Served, queue: ScoreQueue, talks: Sequence[Conversation], param: str) -> list[dict[str, Any]]:
    with served.places(len(talks)):
        results = await queue.ask(talks)
    for index, result in enumerate(results):
        if isinstance(result, SwiftError):
            raise from_swift(result, param if len(results) == 1 else f'{param}[{index}]')
    return results


def _shortened(vector: list[float], dimensions: int | None) -> list[float]:
    if dimensions is None or dimensions == len(vector):
        return vector
    if dimensions > len(vector):
        raise ApiError(400, f'dimensions: the vectors have {len(vector)}', param='dimensions', code='invalid_value')
    short = vector[:dimensions]
    length = sum(value * value for value in short) ** 0.5 or 1.0
    return [value / length for value in short]


def _encoded(vector: list[float], form: str | None) -> list[float] | str:
    return base64.b64encode(struct.pack(f'<{len(vector)}f', *vector)).decode() if form == 'base64' else vector


def _meant(result: dict[str, Any]) -> dict[str, Any]:
    """The score of a result: the number itself, or the probability of the class beside its name; of words, each with its own."""
    if 'words' in result:
        return {'score': None, 'label': result['response'], 'words': result['words']}
    response, shares = result['response'], result.get('probabilities')
    if shares is None:
        return {'score': response}
    best = shares[str(response)] if not isinstance(response, list) else max(shares.values())
    return {'score': best, 'label': response, 'probabilities': shares}


def _scored(name: str, data: list[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
    return {'id': f'score-{uuid.uuid4().hex}', 'object': 'list', 'model': name, 'data': data, 'usage': usage}


def _usage(served: Served, queue: ScoreQueue, texts: Sequence[str]) -> dict[str, int]:
    count = sum(len(queue.tokenizer.encode(text)) for text in texts)
    served.metrics.tokens(count, 0, len(texts))
    return {'prompt_tokens': count, 'total_tokens': count}
