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


@pytest.mark.parametrize(('family', 'kind', 'part'), [
    ('qwen2_vl', 'image', 'image_url'), ('qwen2_vl', 'video', 'video_url'), ('qwen2_audio', 'audio', 'input_audio'),
])  # fmt: skip
def test_a_model_answers_what_it_is_shown(family, kind, part, tmp_path_factory):
    """Another picture, clip or sound gets another answer, and each is that of the engine without a server, streamed as well."""
    from openai import OpenAI

    from swift.infer_engine import InferRequest, RequestConfig, TransformersEngine
    from tests.helpers.shown import file_of, model_dir, root

    root(tmp_path_factory)
    engine = TransformersEngine(model_dir(family))
    settings = dict(max_tokens=12, temperature=0)
    seen = []
    with running(Served([ServedModel('m')], engine=engine)) as server, OpenAI(api_key='-', base_url=server.url, max_retries=0) as client:
        for number in range(2):
            with open(file_of(kind, number), 'rb') as file:
                data = base64.b64encode(file.read()).decode()
            shown = {'data': data, 'format': 'wav'} if kind == 'audio' else {'url': f'data:{kind}/x;base64,{data}'}
            messages = [{'role': 'user', 'content': [{'type': part, part: shown}, {'type': 'text', 'text': 'What is it?'}]}]
            asked = dict(model='m', messages=messages, logprobs=True, **settings)
            answer = client.chat.completions.create(**asked).choices[0]
            streamed = ''.join(chunk.choices[0].delta.content or '' for chunk in client.chat.completions.create(**asked, stream=True) if chunk.choices)
            request = InferRequest([{'role': 'user', 'content': f'<{kind}>What is it?'}], **{f'{kind}s': [file_of(kind, number)]})
            [alone] = engine.infer([request], RequestConfig(**settings, logprobs=True))
            wanted = [entry['logprob'] for entry in alone.choices[0].logprobs['content']]
            assert [entry.logprob for entry in answer.logprobs.content] == pytest.approx(wanted, abs=1e-5)
            assert answer.message.content == streamed == alone.choices[0].message.content
            seen.append(wanted[0])
    assert seen[0] != pytest.approx(seen[1], abs=1e-5)
