"""Images, videos and sounds of requests: what reaches the template, and which files and hosts are let in."""

import base64

import pytest

from swift.core.types import Completion, Prompt
from swift.infer_engine import InferEngine
from swift.infer_engine.server import Served, ServedModel, running

from .conftest import caller

DATA = 'data:image/png;base64,iVBORw0KGgo='


class Template:
    """Notes the conversations that it is asked for."""

    class tokenizer:
        all_special_ids: list[int] = []

        @staticmethod
        def decode(ids, **_):
            return 'seen'

    def __init__(self):
        self.seen = []

    def prompt(self, talk):
        self.seen.append(talk)
        return Prompt([1], 'x')

    def decode(self, completion):
        return {'role': 'assistant', 'content': completion.text}


class Engine(InferEngine):
    def generate(self, prompts, configs, adapters, on_done=None):
        return [[Completion([2], 'seen', 'stop', None, 1)] for _ in prompts]


@pytest.fixture(scope='module')
def asked(tmp_path_factory):
    """`asked(content, **fields) → (status, answer, conversation that the template got)`, and the folder that is let in."""
    root = tmp_path_factory.mktemp('media')
    (root / 'in').mkdir()
    (root / 'in' / 'a.png').write_bytes(b'x')
    (root / 'out.png').write_bytes(b'x')
    (root / 'in' / 'link.png').symlink_to(root / 'out.png')
    template = Template()
    served = Served([ServedModel('m')], engine=Engine(template, 'm'), media_root=str(root / 'in'), media_hosts=['good.test'])
    with running(served) as server:
        call = caller(server)

        def ask(content, **fields):
            template.seen.clear()
            status, answer = call('/v1/chat/completions', {'model': 'm', 'messages': [{'role': 'user', 'content': content}], **fields})
            return status, answer, template.seen[0] if template.seen else None

        yield ask, root


def parts(talk):
    return talk.messages[0]['content']


def test_every_way_to_show_something(asked):
    ask, root = asked
    sound = base64.b64encode(b'RIFF' + b'x' * 40).decode()
    status, _, talk = ask([
        {'type': 'text', 'text': 'Look: '},
        {'type': 'image_url', 'image_url': {'url': DATA, 'detail': 'low'}},
        {'type': 'video_url', 'video_url': {'url': 'https://good.test/a.mp4'}},
        {'type': 'input_audio', 'input_audio': {'data': sound, 'format': 'wav'}},
        {'type': 'image', 'image': 'a.png'},
    ])  # fmt: skip
    assert status == 200 and parts(talk) == [
        {'type': 'text', 'text': 'Look: '}, {'type': 'image', 'image': DATA}, {'type': 'video', 'video': 'https://good.test/a.mp4'},
        {'type': 'audio', 'audio': f'data:audio/wav;base64,{sound}'}, {'type': 'image', 'image': str(root / 'in' / 'a.png')},
    ]  # fmt: skip
    assert talk.images == [DATA, str(root / 'in' / 'a.png')] and talk.videos == ['https://good.test/a.mp4']


def test_lists_beside_the_messages(asked):
    ask, root = asked
    status, _, talk = ask('<image>What is <image> it?', images=[DATA, f'file://{root}/in/a.png'])
    assert status == 200 and [part['type'] for part in parts(talk)] == ['image', 'text', 'image', 'text']
    assert parts(talk)[2] == {'type': 'image', 'image': str(root / 'in' / 'a.png')}
    status, answer, _ = ask('<image><image>', images=[DATA])
    assert status == 400 and '2 <image> tags' in answer['error']['message']


@pytest.mark.parametrize('ref', ['../out.png', 'link.png', '/etc/passwd', 'file:///etc/passwd', '..', '', 'a\0b', 'http://bad.test/x.png', 'http:///x'])
def test_what_is_not_let_in(asked, ref):
    ask, _ = asked
    for part in ({'type': 'image_url', 'image_url': {'url': ref}}, {'type': 'image', 'image': ref}, {'type': 'video', 'video': [DATA, ref]}):
        status, answer, talk = ask([part])
        assert status == 400 and answer['error']['type'] == 'invalid_request_error' and talk is None


def test_references_that_are_no_text(asked):
    ask, _ = asked
    for ref in (5, {'array': [1]}, {'path': '/etc/passwd'}, [[DATA]], {'url': {'url': 5}}):
        status, answer, talk = ask([{'type': 'image', 'image': ref}])
        assert status == 400 and talk is None, (ref, answer)
