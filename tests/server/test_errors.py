"""Every mistake has the form of OpenAI's errors, a status that says whose it is, and names the field."""

import openai
import pytest

from .conftest import say

PIXEL = 'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAG7buVgAAAABJRU5ErkJggg=='

WRONG = [
    ({'model': 'tinny'}, 404, 'model', "did you mean 'tiny'"),
    ({'messages': []}, 400, 'messages', 'at least 1'),
    ({'messages': 'hi'}, 400, 'messages', 'list'),
    ({'messages': [{'role': 'usr', 'content': 'x'}]}, 400, 'messages[0].role', "'user'"),
    ({'messages': [{'content': 'x'}]}, 400, 'messages[0].role', 'required'),
    ({'messages': [{'role': 'user', 'content': 3}]}, 400, 'messages[0].content', 'string'),
    ({'messages': [{'role': 'user', 'content': 'x', 'rle': 1}]}, 400, 'messages[0].rle', 'unknown field'),
    ({'messages': [{'role': 'user', 'content': 'word ' * 3000}]}, 400, None, 'the model takes 2048'),
    ({'messages': [{'role': 'tool'}]}, 400, 'messages[0].content', 'required'),
    ({'messages': [{'role': 'assistant', 'tool_calls': [{'function': {'name': 'f', 'arguments': {}}}]}]}, 400, 'messages[0].tool_calls[0].function.arguments', 'string'),
    ({'temprature': 1}, 400, 'temprature', "did you mean 'temperature'"),
    ({'temperature': 'hot'}, 400, 'temperature', 'number'),
    ({'temperature': -1}, 400, 'temperature', 'greater than or equal to 0'),
    ({'top_p': 0}, 400, 'top_p', 'greater than 0'),
    ({'n': 0}, 400, 'n', 'greater than or equal to 1'),
    ({'max_tokens': 1.5}, 400, 'max_tokens', 'integer'),
    ({'max_tokens': True}, 400, 'max_tokens', 'integer'),
    ({'stop': ''}, 400, 'stop', 'at least 1'),
    ({'seed': 2**70}, 400, 'seed', 'less than'),
    ({'top_logprobs': 2}, 400, 'top_logprobs', 'needs "logprobs"'),
    ({'logprobs': True, 'top_logprobs': 6}, 400, 'top_logprobs', 'at most 5'),
    ({'stream_options': {'include_usage': True}}, 400, 'stream_options', 'needs "stream"'),
    ({'response_format': {'type': 'jsn'}}, 400, 'response_format.type', "'json_object'"),
    ({'response_format': {'type': 'json_schema'}}, 400, 'response_format', 'schema'),
    ({'guided_regex': '('}, 400, 'guided_regex', 'regex'),
    ({'guided_choice': ['a'], 'guided_regex': 'a'}, 400, 'guided_choice', 'not together'),
    ({'tool_choice': {'type': 'function', 'function': {'name': 'g'}}, 'tools': [{'type': 'function', 'function': {'name': 'f'}}]}, 400, 'tool_choice', "no tool 'g'"),
    ({'tool_choice': 'required', 'guided_regex': 'a', 'tools': [{'type': 'function', 'function': {'name': 'f'}}]}, 400, 'tool_choice', 'its own form'),
    ({'response_format': {'type': 'json_object'}, 'num_beams': 2, 'stream': False}, 400, 'num_beams', 'not with guided output'),
    ({'guided_json': {'type': 'objekt'}}, 400, 'guided_json', 'Invalid type: objekt'),
    ({'tool_choice': 'auto'}, 400, 'tool_choice', 'no tools'),
    ({'tools': [{'type': 'function', 'function': {}}]}, 400, 'tools[0].function.name', 'required'),
    ({'logit_bias': {'5': 1.0}}, 400, 'logit_bias', 'not supported'),
    ({'functions': [{'name': 'f'}]}, 400, 'functions', 'send tools'),
    ({'modalities': ['text', 'audio']}, 400, 'modalities', 'answers are texts'),
    ({'num_beams': 2, 'stream': True}, 400, 'stream', 'beams'),
    ({'messages': [{'role': 'user', 'content': [{'type': 'image_url', 'image_url': {'url': '/etc/passwd'}}]}]}, 400, 'messages', 'allowed_local_media_path'),
    ({'messages': [{'role': 'user', 'content': [{'type': 'imageurl'}]}]}, 400, 'messages[0].content[0].type', "did you mean 'image_url'"),
    ({'messages': [{'role': 'user', 'content': [{'type': 'text'}]}]}, 400, 'messages[0].content[0].text', 'a text is needed'),
    ({'messages': [{'role': 'user', 'content': [{'type': 'image_url', 'image_url': {'url': PIXEL}}]}]}, 400, None, 'image'),
    ({'messages': [{'role': 'user', 'content': [{'type': 'image_url', 'image_url': {'url': 5}}]}]}, 400, 'messages', 'data URI'),
]


@pytest.mark.parametrize('fields, status, param, words', WRONG, ids=lambda value: str(value)[:40])
def test_malformed_requests(call, fields, status, param, words):
    for stream in (False, True) if 'stream' not in fields and 'stream_options' not in fields else (False,):
        found, body = call('/v1/chat/completions', {**say('x'), **fields, **({'stream': True} if stream else {})})
        assert found == status, body
        error = body['error']
        assert set(error) == {'message', 'type', 'param', 'code'} and words in error['message'], error
        assert param is None or error['param'] == param, error


def test_fields_that_ask_for_nothing_pass(call):
    nothing = {
        'user': 'me', 'response_format': {'type': 'text'}, 'logit_bias': {}, 'tool_choice': 'none', 'modalities': ['text'], 'store': False,
        'service_tier': 'auto', 'metadata': {'a': 'b'}, 'tools': [], 'top_logprobs': None, 'stop': None, 'parallel_tool_calls': True,
    }  # fmt: skip
    status, body = call('/v1/chat/completions', say('What is 12 + 30?', **nothing))
    assert status == 200 and body['choices'][0]['message']['content'] == '42'


@pytest.mark.parametrize('data', [b'', b'{', b'null', b'[]', b'"x"', b'\xff\xfe', b'{"model": NaN}', b'[' * 100000, b'{"a":"\\ud800"}'])
def test_bodies_that_are_no_requests(call, data):
    status, body = call('/v1/chat/completions', data)
    assert status == 400 and body['error']['type'] == 'invalid_request_error'


def test_lone_surrogates(call):
    data = b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}'
    status, body = call('/v1/chat/completions', data)
    assert (status, body['error']['code']) == (400, 'invalid_json') and 'surrogate' in body['error']['message']
    assert call('/v1/chat/completions', b'{"model": "\xed\xa0\x80"}')[0] == 400
    for part in (b'"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": "\\ud800"}}}]', b'"chat": 1'):
        data = b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}], ' + part + b'}'
        assert call('/v1/chat/completions', data)[0] == 400


def test_other_content_types(call):
    status, body = call('/v1/chat/completions', b'model=tiny', {'Content-Type': 'application/x-www-form-urlencoded'})
    assert status == 400 and 'Content-Type: application/json' in body['error']['message']


def test_paths_and_methods(call):
    status, body = call('/v1/chat/completion', {})
    assert status == 404 and "did you mean '/v1/chat/completions'" in body['error']['message']
    status, body = call('/v1/chat/completions')
    assert status == 405 and body['error']['message'] == '/v1/chat/completions does not take GET'
    assert call('/v1/models/other')[0] == 404
    assert call('/v1/embeddings', {'model': 'tiny', 'input': 'x'})[1]['error']['code'] == 'unsupported_endpoint'


def test_the_client_raises_its_own_errors(client):
    with pytest.raises(openai.NotFoundError, match="did you mean 'tiny'"):
        client.chat.completions.create(**{**say('x'), 'model': 'tinny'})
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**say('x'), logit_bias={'5': 1})
    assert caught.value.param == 'logit_bias' and caught.value.code == 'unsupported_value'
