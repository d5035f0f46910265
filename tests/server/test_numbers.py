"""/v1/embeddings, /v1/score, /v1/rerank: the numbers are the scorer's own."""

import base64
import struct

import numpy as np
import openai
import pytest

from swift.core.types import Conversation
from swift.pipelines.deploy import SwiftDeploy

from .conftest import caller

TEXTS = ['one plus two', 'two plus one', 'the capital of France']


@pytest.fixture(scope='module')
def deployed():
    """`deployed(task, **flags) → (pipeline, call)` of a running server; one for each task and flags."""
    open_ones, made = [], {}

    def deploy(task, **flags):
        key = (task, *map(str, flags.values()))
        if key not in made:
            pipeline = SwiftDeploy({'model': 'tiny', 'task_type': task, 'port': 0, 'local_only': True, **flags})
            block = pipeline.background()
            block.__enter__()
            open_ones.append(block)
            made[key] = pipeline, caller(pipeline.server)
        return made[key]

    yield deploy
    for block in open_ones:
        block.__exit__(None, None, None)


def user(text):
    return {'role': 'user', 'content': text}


def test_embeddings(deployed):
    pipeline, _ = deployed('embedding')
    client = openai.OpenAI(api_key='x', base_url=pipeline.server.url, max_retries=0)
    answer = client.embeddings.create(model='tiny', input=TEXTS, encoding_format='float')
    own = pipeline.served.scores.engine.infer([Conversation([user(text)]) for text in TEXTS])
    vectors = np.array([item.embedding for item in answer.data])
    assert np.allclose(vectors, [result['response'] for result in own]) and np.allclose(np.linalg.norm(vectors, axis=1), 1)
    tokenizer = pipeline.served.scores.tokenizer
    assert [item.index for item in answer.data] == [0, 1, 2] and answer.usage.prompt_tokens == sum(len(tokenizer.encode(t)) for t in TEXTS)
    packed = client.embeddings.create(model='tiny', input=TEXTS)  # the client asks for base64 by itself
    assert np.allclose([item.embedding for item in packed.data], vectors, atol=1e-6)
    short = client.embeddings.create(model='tiny', input=TEXTS[0], dimensions=16, encoding_format='float').data[0].embedding
    assert np.allclose(short, vectors[0, :16] / np.linalg.norm(vectors[0, :16]))
    ids = client.embeddings.create(model='tiny', input=tokenizer.encode(TEXTS[0]), encoding_format='float').data[0].embedding
    assert np.allclose(ids, vectors[0])


def test_base64_is_little_endian_floats(deployed):
    _, call = deployed('embedding')
    as_text = call('/v1/embeddings', {'model': 'tiny', 'input': 'x', 'encoding_format': 'base64'})[1]['data'][0]['embedding']
    as_list = call('/v1/embeddings', {'model': 'tiny', 'input': 'x'})[1]['data'][0]['embedding']
    data = base64.b64decode(as_text)
    assert struct.unpack(f'<{len(data) // 4}f', data) == pytest.approx(as_list, abs=1e-6)


def test_scores_and_ranks_of_an_embedding_model(deployed):
    _, call = deployed('embedding')
    data = call('/v1/score', {'model': 'tiny', 'text_1': TEXTS[0], 'text_2': TEXTS})[1]['data']
    assert data[0]['score'] == pytest.approx(1, abs=1e-5) and data[1]['score'] > data[2]['score']
    results = call('/v1/rerank', {'model': 'tiny', 'query': TEXTS[0], 'documents': TEXTS[::-1], 'top_n': 2})[1]['results']
    assert [item['index'] for item in results] == [2, 1] and results[0]['document'] == {'text': TEXTS[0]}


def test_a_reranker(deployed):
    pipeline, call = deployed('generative_reranker')
    body = {'model': 'tiny', 'query': 'What is 2 + 3?', 'documents': ['5', '7', 'red'], 'return_documents': False}
    status, answer = call('/v1/rerank', body)
    talk = Conversation([user(body['query'])], positives=[[user(text)] for text in body['documents']])
    (own,) = pipeline.served.scores.engine.infer([talk])
    assert status == 200 and [item['index'] for item in answer['results']] == own['ranking']
    assert [item['relevance_score'] for item in answer['results']] == pytest.approx([own['response'][i] for i in own['ranking']])
    assert all(set(item) == {'index', 'relevance_score'} for item in answer['results'])
    data = call('/v1/score', {'model': 'tiny', 'text_1': body['query'], 'text_2': body['documents']})[1]['data']
    assert [item['score'] for item in data] == pytest.approx(own['response'], rel=1e-4)


def test_a_classifier_and_a_reward_model(deployed):
    pipeline, call = deployed('seq_cls', num_labels=3, class_names=['a', 'b', 'c'], init_strategy='normal')
    data = call('/v1/score', {'model': 'tiny', 'text_1': TEXTS})[1]['data']
    own = pipeline.served.scores.engine.infer([Conversation([user(text)]) for text in TEXTS])
    assert [item['label'] for item in data] == [result['response'] for result in own]
    assert all(item['score'] == max(item['probabilities'].values()) and len(item['probabilities']) == 3 for item in data)
    status, body = call('/v1/score', {'model': 'tiny', 'text_1': 'x', 'text_2': 'y'})
    assert (status, body['error']['param']) == (400, 'text_1')
    pipeline, call = deployed('seq_cls', num_labels=1, init_strategy='normal')
    talk = [user('What is 2 + 3?'), {'role': 'assistant', 'content': '5'}]
    (own,) = pipeline.served.scores.engine.infer([Conversation(talk)])
    for body in ({'messages': talk}, {'text_1': 'What is 2 + 3?', 'text_2': '5'}):
        (item,) = call('/v1/score', {'model': 'tiny', **body})[1]['data']
        assert item == {'index': 0, 'object': 'score', 'score': pytest.approx(own['response'], rel=1e-4)}


def test_what_is_refused(deployed):
    _, call = deployed('embedding')
    for path, body, param in (
        ('/v1/embeddings', {'input': ''}, 'input'), ('/v1/embeddings', {'input': []}, 'input'), ('/v1/embeddings', {'input': [10**6]}, 'input'),
        ('/v1/embeddings', {'input': 'x', 'dimensions': 10**6}, 'dimensions'), ('/v1/embeddings', {'input': 'x ' * 5000}, 'input'),
        ('/v1/score', {'text_1': 'x'}, 'text_2'), ('/v1/score', {'text_1': ['x', 'y'], 'text_2': ['z']}, 'text_2'),
        ('/v1/rerank', {'query': 'x', 'documents': []}, 'documents'), ('/v1/rerank', {'query': 'x', 'document': ['y']}, 'documents'),
        ('/v1/chat/completions', {'messages': [user('x')]}, 'model'), ('/v1/completions', {'prompt': 'x'}, 'model'),
    ):  # fmt: skip
        status, answer = call(path, {'model': 'tiny', **body})
        assert (status, answer['error']['param']) == (400, param), answer
    assert call('/v1/embeddings', {'model': 'other', 'input': 'x'})[0] == 404
