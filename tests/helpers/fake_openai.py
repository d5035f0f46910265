"""A small server that speaks OpenAI's chat protocol and answers by rule, so that what a client sends and reads is known exactly."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeServer(ThreadingHTTPServer):
    """`bodies`: what was asked. `refusals`: (status, headers, body) given first, one a request. `pause`: seconds between words.

    The answer to a question repeats its last user text: `You said: …`, streamed word by word. Words in the question ask for
    more: `think`, `call` (a tool), `cut` (the stream breaks off), `twice` needs nothing but n.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, names):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.names, self.bodies, self.headers, self.refusals = names, [], [], []
        self.pause, self.at_once, self.most, self.left = 0.0, 0, 0, 0
        self.lock = threading.Lock()

    @property
    def url(self):
        return f'http://127.0.0.1:{self.server_address[1]}'

    def handle_error(self, request, client_address):
        """Clients that leave are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def _json(self, value, status=200, headers=()):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == '/v1/models':
            return self._json({'object': 'list', 'data': [{'id': name, 'object': 'model'} for name in self.server.names]})
        return self._json({'error': {'message': 'nothing here'}}, 404)

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        with server.lock:
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            refusal = server.refusals.pop(0) if server.refusals else None
            server.at_once += 1
            server.most = max(server.most, server.at_once)
        try:
            if refusal:
                return self._json(refusal[2], refusal[0], refusal[1])
            if self.path == '/v1/load_lora_adapter':
                server.names.append(body['lora_name'])
                return self._json(b'Success: the adapter was added')
            if body['model'] not in server.names:
                return self._json({'error': {'message': f'The model `{body["model"]}` does not exist', 'code': 404}}, 404)
            if self.path == '/v1/completions':
                return self._continue(body)
            if body.get('stream'):
                return self._stream(body)
            time.sleep(server.pause)
            with server.lock:
                server.at_once -= 1  # the client may ask again as soon as it has read
            self._json(whole(body))
            with server.lock:
                server.at_once += 1
        except (BrokenPipeError, ConnectionResetError):
            server.left += 1
        finally:
            with server.lock:
                server.at_once -= 1

    def _continue(self, body):
        """The prompt's ids backwards, as many as asked for; each id is its own text."""
        ids = body['prompt'][::-1][: body['max_tokens']]
        base = {'id': 'cmpl-7', 'object': 'text_completion', 'created': 5, 'model': body['model']}
        if not body.get('stream'):
            return self._json({**base, 'choices': [completion(ids, i, 'length', body) for i in range(body['n'])]})
        self.send_response(200)
        self.send_header('Content-Type', 'text/event-stream')
        self.end_headers()
        for number, one in enumerate(ids):
            choice = completion([one], 0, 'length' if number == len(ids) - 1 else None, body)
            self.wfile.write(f'data: {json.dumps({**base, "choices": [choice]})}\n\n'.encode())
        self.wfile.write(b'data: [DONE]\n\n')

    def _stream(self, body):
        self.send_response(200)
        self.send_header('Content-Type', 'text/event-stream')
        self.end_headers()
        for event in events(body):
            if event is None:
                return
            self.wfile.write(f': comment\ndata: {json.dumps(event)}\n\n'.encode())
            self.wfile.flush()
            time.sleep(self.server.pause)
        self.wfile.write(b'data: [DONE]\n\n')


def completion(ids, index, reason, body):
    logprobs = None
    if body.get('logprobs'):
        names = [f'token_id:{i}' for i in ids]
        logprobs = {'tokens': names, 'token_logprobs': [-0.5] * len(ids), 'top_logprobs': [{name: -0.5, 'token_id:3': -2.0} for name in names]}
    return {'index': index, 'text': ''.join(f'<{i}>' for i in ids), 'token_ids': ids, 'finish_reason': reason, 'logprobs': logprobs}


def said(body):
    content = body['messages'][-1]['content']
    return content if isinstance(content, str) else ''.join(part.get('text', '') for part in content)


def message_of(body):
    question = said(body)
    message = {'role': 'assistant', 'content': f'You said: {question}'}
    if 'think' in question:
        message['reasoning_content'] = 'Let me see.'
    if 'call' in question:
        message['tool_calls'] = [{'id': 'c1', 'type': 'function', 'function': {'name': 'add', 'arguments': '{"a": 1}'}}]
        message['content'] = None
    return message


def whole(body):
    message = message_of(body)
    reason = 'tool_calls' if message.get('tool_calls') else 'stop'
    choices = [{'index': i, 'message': message, 'finish_reason': reason, 'logprobs': None} for i in range(body.get('n', 1))]
    usage = {'prompt_tokens': len(said(body)), 'completion_tokens': 3, 'total_tokens': len(said(body)) + 3}
    return {'id': 'chatcmpl-7', 'object': 'chat.completion', 'created': 5, 'model': body['model'], 'choices': choices, 'usage': usage}


def events(body):
    """The stream of the same answer; None: the connection ends here."""
    answer = whole(body)
    base = {'id': answer['id'], 'object': 'chat.completion.chunk', 'created': 5, 'model': body['model']}

    def event(index, delta, reason=None):
        return {**base, 'choices': [{'index': index, 'delta': delta, 'finish_reason': reason}]}

    for choice in answer['choices']:
        index, message = choice['index'], choice['message']
        yield event(index, {'role': 'assistant', 'content': ''})
        if 'reasoning_content' in message:
            yield event(index, {'reasoning_content': message['reasoning_content']})
        for call in message.get('tool_calls') or []:
            yield event(index, {'tool_calls': [{'index': 0, 'id': call['id'], 'function': {'name': 'add', 'arguments': ''}}]})
            for piece in ('{"a"', ': 1}'):
                yield event(index, {'tool_calls': [{'index': 0, 'function': {'arguments': piece}}]})
        for number, word in enumerate((message['content'] or '').split(' ')):
            if 'cut' in said(body) and number == 2:
                yield None
            yield event(index, {'content': word if number == 0 else f' {word}'})
        yield event(index, {}, choice['finish_reason'])
    if body.get('stream_options', {}).get('include_usage'):
        yield {**base, 'choices': [], 'usage': answer['usage']}


@contextmanager
def fake_server(*names):
    """A running server that knows these models."""
    server = FakeServer(list(names) or ['fake', 'fake-lora'])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
