"""What goes over the wire, what comes back, and what happens when a server is busy, wrong or gone."""

import asyncio
import base64
import socket
import time

import pytest

from swift.core.errors import SwiftError
from swift.infer_engine import AdapterRequest, InferRequest, RequestConfig
from swift.infer_engine.client import ClientEngine
from swift.infer_engine.remote import Remote, root_of
from tests.helpers.fake_openai import fake_server


@pytest.fixture
def server():
    with fake_server() as server:
        yield server


@pytest.fixture
def engine(server, monkeypatch):
    monkeypatch.setattr('swift.infer_engine.remote.FIRST_PAUSE', 0.01)
    return ClientEngine(server.url, api_key='secret', max_retries=2)


def ask(text, **more):
    return InferRequest([{'role': 'user', 'content': text}], **more)


def joined(pieces):
    pieces = list(pieces)
    text = ''.join(piece.choices[0].delta.content or '' for piece in pieces)
    return text, pieces


def test_answers_come_in_the_order_of_the_requests(engine, server):
    answers = engine.infer([ask(f'number {i}') for i in range(80)], RequestConfig(max_tokens=7, temperature=0))
    assert [answer.choices[0].message.content for answer in answers] == [f'You said: number {i}' for i in range(80)]
    assert answers[10].usage.prompt_tokens == 9 and answers[10].usage.total_tokens == 12
    assert answers[0].model == 'fake' and answers[0].choices[0].finish_reason == 'stop'


def test_the_body_holds_what_was_set_and_nothing_else(engine, server):
    config = RequestConfig(max_tokens=7, temperature=0.5, top_k=3, stop='x', seed=1, n=2, logprobs=True, top_logprobs=2, presence_penalty=0.5)
    answer = engine.infer([ask('hi')], config)[0]
    assert server.bodies[0] == {
        'model': 'fake', 'messages': [{'role': 'user', 'content': 'hi'}], 'max_tokens': 7, 'temperature': 0.5, 'top_k': 3, 'stop': ['x'],
        'seed': 1, 'n': 2, 'logprobs': True, 'top_logprobs': 2, 'presence_penalty': 0.5,
    }  # fmt: skip
    assert server.headers[0]['Authorization'] == 'Bearer secret'
    assert [choice.index for choice in answer.choices] == [0, 1]
    engine.infer([ask('hi')])
    assert server.bodies[1] == {'model': 'fake', 'messages': [{'role': 'user', 'content': 'hi'}]}


def test_an_adapter_is_the_model_of_its_name(engine, server):
    answers = engine.infer([ask('a'), ask('b')], adapter_request=[None, AdapterRequest('fake-lora', 'anywhere')])
    assert sorted(body['model'] for body in server.bodies) == ['fake', 'fake-lora']
    assert [answer.model for answer in answers] == ['fake', 'fake-lora']


def test_a_stream_is_the_same_answer(engine, server):
    whole = engine.infer([ask('think of a call'), ask('one two three')])
    streams = engine.infer([ask('think of a call'), ask('one two three')], RequestConfig(stream=True))
    _, first = joined(streams[0])
    text, second = joined(streams[1])
    assert text == whole[1].choices[0].message.content == 'You said: one two three'
    assert len(second) == 7  # the role, five words, the end
    assert second[-1].usage == whole[1].usage and all(piece.usage is None for piece in second[:-1])
    assert first[-1].choices[0].delta.tool_calls == whole[0].choices[0].message.tool_calls
    assert ''.join(p.choices[0].delta.reasoning_content or '' for p in first) == whole[0].choices[0].message.reasoning_content == 'Let me see.'
    assert first[-1].choices[0].finish_reason == 'tool_calls'


def test_several_choices_share_a_stream(engine):
    pieces = list(engine.infer([ask('a b')], RequestConfig(stream=True, n=2))[0])
    for index in (0, 1):
        assert ''.join(p.choices[0].delta.content or '' for p in pieces if p.choices[0].index == index) == 'You said: a b'
    assert [p.usage is not None for p in pieces].count(True) == 1


def test_async_calls_overlap_and_get_their_own_answers(engine, server):
    server.pause = 0.05

    async def main():
        some = [engine.infer_async(ask(f'n{i}')) for i in range(40)]
        started = time.perf_counter()
        answers = await asyncio.gather(*some)
        took = time.perf_counter() - started
        pieces = [piece async for piece in await engine.infer_async(ask('a b'), RequestConfig(stream=True))]
        return answers, took, pieces

    answers, took, pieces = asyncio.run(main())
    assert [a.choices[0].message.content for a in answers] == [f'You said: n{i}' for i in range(40)]
    assert took < 40 * 0.05 / 2 and server.most > 8
    assert joined(pieces)[0] == 'You said: a b'


def test_concurrency_is_a_limit(server):
    server.pause = 0.01
    ClientEngine(server.url, concurrency=3).infer([ask(str(i)) for i in range(12)])
    assert server.most == 3


def test_leaving_a_stream_leaves_the_server(engine, server):
    server.pause = 0.02
    stream = engine.infer([ask('word ' * 500)], RequestConfig(stream=True))[0]
    next(stream)
    started = time.perf_counter()
    stream.close()
    while server.at_once and time.perf_counter() - started < 3:
        time.sleep(0.01)
    assert server.at_once == 0 and server.left == 1 and time.perf_counter() - started < 3


@pytest.mark.parametrize('status', [429, 500, 503])
def test_busy_servers_are_asked_again(engine, server, status):
    server.refusals = [(status, [], {'error': {'message': 'busy'}})] * 2
    assert engine.infer([ask('x')])[0].choices[0].message.content == 'You said: x'
    assert len(server.bodies) == 3


def test_retry_after_is_obeyed(engine, server):
    server.refusals = [(429, [('Retry-After', '0.4')], {'error': 'busy'})]
    started = time.perf_counter()
    engine.infer([ask('x')])
    assert 0.4 <= time.perf_counter() - started < 2


def test_refusals_are_one_line_with_the_servers_words(engine, server):
    server.refusals = [(429, [], {'error': {'message': 'too\nmany'}})] * 3
    with pytest.raises(SwiftError, match=r'^request 0: \S+/v1/chat/completions answered 429: too many; the server is busy: ask less at once$'):
        engine.infer([ask('x')])
    assert len(server.bodies) == 3
    for body, words in (({'detail': [{'msg': 'top_k'}]}, 'top_k'), (b'<html>', 'Bad Request'), ({'message': 'no such field'}, 'no such field')):
        server.refusals = [(400, [], body)]
        with pytest.raises(SwiftError, match=f'answered 400: .*{words}'):
            engine.infer([ask('x')])
    assert len(server.bodies) == 6  # 400 is not asked again


def test_a_wrong_request_among_good_ones(engine):
    answers = engine.infer([ask('x'), InferRequest([{'role': 'user', 'content': 3}]), ask('y')], strict=False)
    assert [isinstance(answer, SwiftError) for answer in answers] == [False, True, False]
    assert str(answers[1]).startswith('request 1: messages[0]: the content is a int')
    answers = engine.infer([ask('x'), ask('y')], adapter_request=[AdapterRequest('gone', '-'), None], strict=False)
    assert 'The model `gone` does not exist' in str(answers[0]) and answers[1].choices
    with pytest.raises(SwiftError, match='^request 1: '):
        engine.infer([ask('x'), ask('y')], adapter_request=[None, AdapterRequest('gone', '-')])


def test_a_job_of_any_length_keeps_its_order(engine):
    asked = ((ask(f'{i}'), RequestConfig()) if i % 50 else SwiftError(f'row {i}') for i in range(300))
    answers = list(engine.infer_each(asked))
    assert len(answers) == 300 and str(answers[50]) == 'row 50'
    assert all(answers[i].choices[0].message.content == f'You said: {i}' for i in range(300) if i % 50)


def test_a_stream_that_breaks_off_is_an_error(engine):
    pieces = engine.infer([ask('cut here')], RequestConfig(stream=True))[0]
    with pytest.raises(SwiftError, match='the stream ended before the answer did'):
        list(pieces)


def test_nobody_there_and_nothing_comes(server):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with pytest.raises(SwiftError, match=rf'^http://127.0.0.1:{port}/v1 can not be reached: Connection refused; is the server running\?$'):
        ClientEngine(f'127.0.0.1:{port}', max_retries=0)
    server.pause = 2
    with pytest.raises(SwiftError, match='no byte came for 0.2 s; raise the timeout'):
        ClientEngine(server.url, timeout=0.2).infer([ask('x')])


def test_a_page_that_is_no_server(server):
    with pytest.raises(SwiftError, match='answered 404: nothing here'):
        ClientEngine(f'{server.url}/elsewhere')


def test_addresses():
    for url in ('http://h:1', 'h:1', 'http://h:1/', 'http://h:1/v1', 'http://h:1/v1/', 'http://h:1/v1/chat/completions'):
        assert root_of(url) == 'http://h:1/v1'
    assert root_of('https://h/api/openai') == 'https://h/api/openai'
    with pytest.raises(SwiftError, match='is no address of a server'):
        root_of('ftp://h')


def test_a_proxy_of_the_environment_is_used(server, monkeypatch):
    monkeypatch.setenv('http_proxy', server.url)
    monkeypatch.setenv('no_proxy', '')
    with pytest.raises(SwiftError, match='answered 404: nothing here'):  # the fake server got the whole address as a path
        Remote('http://far.example/v1').get('/models')


def test_media_travel_in_the_message(engine, server, tmp_path):
    from PIL import Image

    picture, sound = tmp_path / 'a.png', tmp_path / 'b.wav'
    Image.new('RGB', (2, 2)).save(picture)
    sound.write_bytes(b'RIFF\x00\x00\x00\x00WAVEfmt ')
    engine.infer([ask('<image>look <image>and hear <audio>', images=[str(picture), 'https://h/x.jpg'], audios=[str(sound)])])
    parts = server.bodies[0]['messages'][0]['content']
    encoded = base64.b64encode(picture.read_bytes()).decode()
    assert parts == [
        {'type': 'image_url', 'image_url': {'url': f'data:image/png;base64,{encoded}'}},
        {'type': 'text', 'text': 'look '},
        {'type': 'image_url', 'image_url': {'url': 'https://h/x.jpg'}},
        {'type': 'text', 'text': 'and hear '},
        {'type': 'input_audio', 'input_audio': {'data': base64.b64encode(sound.read_bytes()).decode(), 'format': 'wav'}},
    ]
    with pytest.raises(SwiftError, match='request 0: .*gone.png does not exist'):
        engine.infer([ask('look', images=['gone.png'])])


def test_tools_and_their_results(engine, server):
    schema = {'name': 'add', 'parameters': {}}
    call = {'function': {'name': 'add', 'arguments': {'a': 1}}}
    talk = [
        {'role': 'user', 'content': 'x'},
        {'role': 'assistant', 'content': None, 'reasoning_content': 'hm', 'tool_calls': [call, call]},
        {'role': 'tool', 'content': '1'},
        {'role': 'tool', 'content': '2'},
        {'role': 'user', 'content': 'and?'},
    ]
    engine.infer([InferRequest(talk, tools=[schema])])
    body = server.bodies[0]
    assert body['tools'] == [{'type': 'function', 'function': schema}]
    assert body['messages'][1]['tool_calls'][0] == {'id': 'call_1', 'type': 'function', 'function': {'name': 'add', 'arguments': '{"a": 1}'}}
    assert [message.get('tool_call_id') for message in body['messages']] == [None, None, 'call_1', 'call_2', None]
    assert 'reasoning_content' not in body['messages'][1]


def test_what_a_server_can_not_do_is_said(engine):
    with pytest.raises(SwiftError, match='a server is not asked for beam search'):
        engine.infer([ask('x')], RequestConfig(num_beams=2))
