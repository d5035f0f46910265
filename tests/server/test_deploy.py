"""`swift deploy` as a process and from Python: ready soon, several adapters, HTTPS, signals, and what it can't be started with."""

import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import urllib.request

import openai
import pytest

from swift.core.errors import SwiftError

from .conftest import caller, say


@pytest.fixture(scope='module')
def adapters(tmp_path_factory):
    """Folders of two adapters that answer differently from the model, and from each other."""
    import torch
    from peft import LoraConfig, get_peft_model

    from swift.arguments import ModelArgs
    from swift.model.load import load_model
    from swift.model.resolve import TINY_DIR

    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = load_model(ModelArgs(model='tiny')).model
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=32, target_modules=['q_proj', 'v_proj'], init_lora_weights=False))
        folders.append(str(tmp_path_factory.mktemp('adapter') / f'checkpoint-{seed}'))
        model.save_pretrained(folders[-1])
        path = os.path.join(folders[-1], 'adapter_config.json')
        config = json.load(open(path))
        json.dump({**config, 'base_model_name_or_path': TINY_DIR}, open(path, 'w'))
    return folders


def asked(server, model, text='Repeat: 4821'):
    client = openai.OpenAI(api_key='dummy', base_url=server.url, max_retries=0)
    answer = client.chat.completions.create(**{**say(text), 'model': model})
    assert answer.model == model
    return answer.choices[0].message.content


def test_adapters_are_chosen_by_name(adapters, tmp_path):
    from swift import run_deploy

    listed = tmp_path / 'multi_lora_config.json'
    listed.write_text(json.dumps({'model1': adapters[0], 'model2': adapters[1]}), encoding='utf-8')
    with run_deploy(adapters=[str(listed)], served_model_name='base') as server:  # the base is read from the adapters
        models = caller(server)('/v1/models')[1]['data']
        assert [(model['id'], model['parent']) for model in models] == [('base', None), ('model1', 'base'), ('model2', 'base')]
        said = [asked(server, name) for name in ('base', 'model1', 'model2')]
        assert said[0] == '4821' and len(set(said)) == 3
        with pytest.raises(openai.NotFoundError, match="did you mean 'model"):
            asked(server, 'model3')
    with run_deploy(adapters[0], served_model_name='tuned') as server:  # one without a name is the model
        assert asked(server, 'tuned') == said[1]
    with run_deploy('tiny', adapters=[f'one={adapters[0]}', f'two={adapters[1]}']) as server:
        assert [asked(server, name) for name in ('tiny', 'one', 'two')] == said


def test_flags_are_what_requests_start_from(tmp_path):
    from swift import run_deploy

    path = tmp_path / 'answers.jsonl'
    with run_deploy('tiny', max_new_tokens=3, temperature=0, stop_words=['9'], result_path=str(path), owned_by='me') as server:
        call = caller(server)
        body = {'model': 'tiny', 'messages': say('Repeat: 1 2 3 4')['messages']}
        assert call('/v1/chat/completions', body)[1]['usage']['completion_tokens'] == 3
        assert call('/v1/chat/completions', {**body, 'max_tokens': 5})[1]['usage']['completion_tokens'] == 5
        client = openai.OpenAI(api_key='x', base_url=server.url)
        list(client.chat.completions.create(**say('What is 2 + 3?'), stream=True))
        client.completions.create(model='tiny', prompt='1 2 3', max_tokens=2)
        assert call('/v1/models')[1]['data'][0]['owned_by'] == 'me'
        assert 'swift_answers_total 4\n' in call('/metrics')[1]
    rows = [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
    assert [row['model'] for row in rows] == ['tiny'] * 4 and rows[2]['response'] == '5'
    assert rows[2]['messages'][-1] == {'role': 'assistant', 'content': '5'} and rows[3]['prompt'] == '1 2 3'


def test_https_with_a_certificate_of_its_own(tmp_path, monkeypatch):
    from swift import run_deploy

    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path))
    with run_deploy('tiny', enable_ssl=True) as server:
        assert server.url.startswith('https://127.0.0.1:') and server.host == '127.0.0.1'
        key, certificate = tmp_path / 'ssl' / 'key.pem', tmp_path / 'ssl' / 'certificate.pem'
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        trust = ssl.create_default_context(cafile=str(certificate))  # name and address are checked
        for host in ('127.0.0.1', 'localhost'):
            with urllib.request.urlopen(f'https://{host}:{server.port}/health', context=trust, timeout=20) as answer:
                assert answer.status == 200
        made = certificate.read_bytes()
    from swift.infer_engine.server.certificate import self_signed

    assert self_signed() == (str(key), str(certificate)) and certificate.read_bytes() == made


def start(*words, **settings):
    command = [sys.executable, '-m', 'swift', 'deploy', '--model', 'tiny', '--local_only', 'true', *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)


def free_port():
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


class At:
    """The address of a server in another process."""

    def __init__(self, port):
        self.port, self.url = port, f'http://127.0.0.1:{port}/v1'


def health(port):
    try:
        return caller(At(port))('/health')[0]
    except OSError:
        return None


def wait_for(status, port, process, seconds=90):
    ends = time.monotonic() + seconds
    while health(port) != status:
        assert process.poll() is None and time.monotonic() < ends, process.stderr.read()
        time.sleep(0.05)


def test_a_signal_lets_accepted_requests_finish():
    port = free_port()
    process = start('--port', str(port))
    try:
        wait_for(503, port, process)  # it listens before the model is there
        wait_for(200, port, process)
        found = []
        body = say('Repeat: 1 2 3 4', max_tokens=600, ignore_eos=True)
        thread = threading.Thread(target=lambda: found.append(caller(At(port))('/v1/chat/completions', body)))
        thread.start()
        while 'swift_answers_running 1\n' not in caller(At(port))('/metrics')[1]:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        while health(port) != 503:
            time.sleep(0.01)
        assert caller(At(port))('/v1/chat/completions', body)[0] == 503
        thread.join()
        assert found[0][0] == 200 and found[0][1]['usage']['completion_tokens'] == 600
        assert process.wait(20) == 0
        out, err = process.communicate()
        assert out == '' and f'serving tiny at http://127.0.0.1:{port}/v1' in err and '1 requests are finished before the end' in err
    finally:
        process.kill()


def test_a_second_signal_ends_at_once():
    port = free_port()
    process = start('--port', str(port))
    try:
        wait_for(200, port, process)
        body = say('x', max_tokens=1800, ignore_eos=True, n=32)
        thread = threading.Thread(target=lambda: pytest.raises(OSError, caller(At(port)), '/v1/chat/completions', body))
        thread.start()
        while 'swift_answers_running 32\n' not in caller(At(port))('/metrics')[1]:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        while health(port) != 503:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 128 + signal.SIGTERM
        thread.join()
    finally:
        process.kill()


def test_a_signal_while_loading_ends_it():
    port = free_port()
    process = start('--port', str(port))
    wait_for(503, port, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.communicate()


def test_what_it_can_not_be_started_with(tmp_path):
    from swift.pipelines.deploy import SwiftDeploy

    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SwiftError, match=f'127.0.0.1:{port} can not be listened on .*another --port'):
            SwiftDeploy({'model': 'tiny', 'port': port, 'local_only': True})
    with pytest.raises(SwiftError, match='no adapter_config.json|adapter'):
        with SwiftDeploy({'model': 'tiny', 'adapters': [f'a={tmp_path}'], 'port': 0}).background():
            pass
    pipeline = SwiftDeploy({'model': str(tmp_path), 'port': 0, 'local_only': True})
    with pytest.raises(SwiftError):  # found while the server runs already
        pipeline.main()


MISTAKES = [
    (['--host', '0.0.0.0', '--local_only', 'true'], 'drop it or --host 0.0.0.0'),
    (['--port', '70000'], '--port must be from 0 to 65535'),
    (['--ssl_keyfile', 'k'], '--ssl_keyfile needs --ssl_certfile'),
    (['--adapters', 'a', 'b'], 'write name=path'),
    (['--adapters', 'a=x', 'a=y'], 'two adapters have the name a'),
    (['--adapters', 'a=x', '--served_model_name', 'a'], 'is the name of an adapter too'),
    (['--adapters', 'none.json'], 'none.json cannot be read'),
    (['--seed', '3'], '--seed has no effect in swift deploy, where each request asks for its own'),
    (['--logprobs', 'true'], '--logprobs has no effect in swift deploy'),
    (['--task_type', 'embedding', '--temperature', '1'], '--temperature has no effect with a model that generates nothing'),
    (['--allowed_local_media_path', '/nowhere/at/all'], 'no such folder'),
    (['--infer_backend', 'client'], 'swift deploy serves a model of its own'),
    (['--prot', '1'], "did you mean '--port'"),
]


@pytest.mark.parametrize('words, message', MISTAKES, ids=lambda value: ' '.join(value) if isinstance(value, list) else '')
def test_mistakes_in_flags(words, message):
    from swift.arguments import parse_args

    with pytest.raises(SwiftError) as caught:
        parse_args('deploy', ['--model', 'tiny', *words], quiet=True)
    assert message in str(caught.value)


def test_the_model_type_names_the_model():
    from swift.arguments import parse_args
    from swift.pipelines.deploy import _served

    served = _served(parse_args('deploy', ['--model_type', 'qwen-7b-chat', '--model', 'tiny'], quiet=True))
    assert served.model('tiny').name == 'tiny'
    served = _served(parse_args('deploy', ['--model_type', 'qwen-7b-chat'], quiet=True))
    assert served.model('qwen-7b-chat') == served.models[0]
