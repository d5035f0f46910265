"""The three scripts of the toolkit, called as its page calls them."""

import importlib
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from swift.core.errors import ArgumentsError, RowError, SwiftError

TOOLKIT = Path(__file__).resolve().parents[2] / 'examples' / 'toolkit'
ROWS = str(TOOLKIT.parent / 'data' / 'arithmetic.jsonl')
QUICK = ['--max_steps', '3', '--save_steps', '3', '--report_to', 'none', '--per_device_train_batch_size', '2', '--gradient_accumulation_steps', '1']


@pytest.fixture(autouse=True)
def in_the_toolkit(monkeypatch):
    monkeypatch.chdir(TOOLKIT)
    monkeypatch.syspath_prepend(str(TOOLKIT))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A LoRA checkpoint and a whole one, each made by the script with a configuration of the toolkit."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(TOOLKIT)
        patch.syspath_prepend(str(TOOLKIT))
        for kind in ('lora', 'full'):
            folder = tmp_path_factory.mktemp(kind)
            words = ['--config', f'configs/{kind}_sft.json', '--model', 'tiny', '--dataset', ROWS + '#40', '--output_dir', str(folder)]
            found[kind] = str(folder / 'checkpoint-3')
            code, out, _ = call('finetune_trainer', *words, *QUICK)
            assert (code, out.splitlines()[-1]) == (0, f'checkpoint: {found[kind]}')
    return found


def call(script, *words):
    """A script's main in this process: (exit code, stdout, stderr)."""
    main = importlib.import_module(script).main
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main(list(words))
    return code, out.getvalue(), err.getvalue()


def run(script, *words, stdin='', env=()):
    path = os.pathsep.join([str(TOOLKIT.parents[1]), os.environ.get('PYTHONPATH', '')])
    return subprocess.run(
        [sys.executable, script, *words], cwd=TOOLKIT, input=stdin, capture_output=True, text=True, timeout=120,
        env={**os.environ, 'PYTHONPATH': path, **dict(env)},
    )  # fmt: skip


@pytest.mark.parametrize('name', ['lora_sft', 'full_sft', 'multimodal_sft', 'qlora_sft'])
def test_configurations_parse_or_say_why_not(name):
    from finetune_trainer import FineTuner

    from swift.arguments import parse_args

    tuner = FineTuner(f'configs/{name}.json')
    assert json.loads((TOOLKIT / 'configs' / f'{name}.json').read_text())['train_type'] == tuner.flags['train_type']
    if name == 'qlora_sft':
        with pytest.raises(ArgumentsError, match='--train_type qlora: quantised weights'):
            tuner.run_training()
        return
    args = parse_args('sft', tuner.flags)
    assert args.output_dir == f'./output/{name.removesuffix("_sft")}_test' and not args.add_version


def test_flags_win_over_the_file():
    from finetune_trainer import FineTuner, _flags

    flags = _flags(['--config', 'x', '--learning_rate', '2e-4', '--dataset', 'a', 'b', '--deepspeed', '--lora-rank=4'])
    assert flags == {'config': 'x', 'learning_rate': '2e-4', 'dataset': ['a', 'b'], 'deepspeed': 'true', 'lora_rank': '4'}
    assert not {'lora_rank', 'lora_alpha', 'num_train_epochs'} & FineTuner('configs/lora_sft.json', tuner_type='full', max_steps=3).flags.keys()
    tuner = FineTuner('configs/lora_sft.json', learning_rate='2e-4')
    assert tuner.flags['learning_rate'] == '2e-4' and tuner.flags['lora_rank'] == 8 and tuner.flags['max_length'] == 2048


def test_data_is_verified_without_training(tmp_path, capsys):
    from finetune_trainer import FineTuner

    rows = [
        {'system': 'You help.', 'conversations': [{'from': 'user', 'value': '你好'}, {'from': 'assistant', 'value': '你好！'}]}
        for _ in range(5)
    ]
    good, bad = tmp_path / 'good.json', tmp_path / 'bad.jsonl'
    good.write_text(json.dumps(rows, ensure_ascii=False), encoding='utf-8')
    assert FineTuner('configs/lora_sft.json', dataset=str(good), split_dataset_ratio=0.2).verify_data() == {'train': 4, 'val': 1}
    assert 'the data is fine: 4 rows to train on, 1 to validate' in capsys.readouterr().out
    rows[3]['conversations'][0]['value'] = None
    bad.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    with pytest.raises(RowError, match=r'bad.jsonl:4'):
        FineTuner('configs/lora_sft.json', dataset=str(bad), split_dataset_ratio=0).verify_data()
    done = run('finetune_trainer.py', '--config', 'configs/lora_sft.json', '--verify_data', '--dataset', str(bad), '--split_dataset_ratio', '0')
    assert done.returncode == 2 and 'bad.jsonl:4' in done.stderr and 'Traceback' not in done.stderr


def test_mistakes_are_lines():
    done = run('finetune_trainer.py', '--config', 'configs/gone.json')
    assert (done.returncode, done.stderr.count('\n')) == (2, 1) and 'no such file: configs/gone.json' in done.stderr
    done = run('finetune_trainer.py', 'configs/lora_sft.json')
    assert done.returncode == 2 and 'write --config configs/lora_sft.json' in done.stderr


def test_a_file_of_questions(trained, tmp_path):
    output = tmp_path / 'results.json'
    words = ['--questions-file', 'test_questions.json', '--output', str(output), '--temperature', '0', '--max_new_tokens', '8']
    code, out, err = call('inference_test', '--checkpoint', trained['lora'], *words)
    assert code == 0 and 'LoRA adapter' in err and out.endswith(f'results: {output}\n')
    results = json.loads(output.read_text(encoding='utf-8'))
    questions = json.loads((TOOLKIT / 'test_questions.json').read_text(encoding='utf-8'))
    assert [row['question'] for row in results] == questions
    assert all(set(row) == {'question', 'answer', 'time'} and isinstance(row['answer'], str) and 0 < row['time'] < 60 for row in results)
    by_hand = answers_of(trained['lora'], questions)
    assert [row['answer'] for row in results] == by_hand


def answers_of(checkpoint, questions):
    from swift.arguments import parse_args
    from swift.infer_engine import RequestConfig
    from swift.pipelines.infer import build_engine

    engine = build_engine(parse_args('infer', ['--adapters', checkpoint]))
    asked = [{'messages': [{'role': 'user', 'content': question}]} for question in questions]
    return [answer.choices[0].message.content for answer in engine.infer(asked, RequestConfig(max_tokens=8, temperature=0))]


def test_one_question(trained):
    words = ['--mode', 'single', '--question', 'What is 2 + 3?', '--temperature', '0']
    code, out, err = call('inference_test', '--checkpoint', trained['full'], *words)
    assert (code, out.strip()) == (0, '5') and 'whole model' in err


@pytest.mark.slow
def test_commands_as_they_are_typed(tmp_path):
    folder = tmp_path / 'out'
    words = ['--config', 'configs/lora_sft.json', '--model', 'tiny', '--dataset', ROWS + '#40', '--output_dir', str(folder), *QUICK]
    done = run('finetune_trainer.py', *words)
    assert done.returncode == 0, done.stderr
    words = ['--checkpoint', str(folder), '--mode', 'interactive', '--temperature', '0']
    done = run('inference_test.py', *words, stdin='What is 2 + 3?\nexit\nnever asked\n')
    assert done.returncode == 0 and done.stdout.strip() == '5', done.stderr


def test_questions_in_other_shapes_and_none(tmp_path):
    from inference_test import kind_of, questions_of

    path = tmp_path / 'q.json'
    for content in (['a', 'b'], [{'question': 'a'}, {'question': 'b'}], {'questions': ['a', {'question': 'b'}]}):
        path.write_text(json.dumps(content))
        assert questions_of(str(path)) == ['a', 'b']
    for content in ('[]', '{"x": 1}', '[1]', 'nonsense'):
        path.write_text(content)
        with pytest.raises(SwiftError, match='--questions-file .*q.json'):
            questions_of(str(path))
    with pytest.raises(SwiftError, match='holds neither adapter_config.json nor config.json'):
        kind_of(str(tmp_path))


def words_for(*words):
    import argparse

    from deploy_model import words_of

    known = dict(checkpoint=None, type=None, port=8000, infer_backend='pt', served_model_name=None, multi_lora_config=None)
    return words_of(argparse.Namespace(**{**known, **dict(words)}), [])


def test_checkpoints_become_flags_of_swift_deploy(trained, tmp_path):
    lora, full = trained['lora'], trained['full']
    base = ['--port', '8000', '--infer_backend', 'pt']
    assert words_for(('checkpoint', lora), ('type', 'lora')) == ['--adapters', lora, *base]
    assert words_for(('checkpoint', full)) == ['--model', full, *base]
    assert words_for(('checkpoint', lora), ('served_model_name', 'mine')) == ['--adapters', lora, *base, '--served_model_name', 'mine']
    assert words_for(('type', 'multi-lora'), ('multi_lora_config', 'm.json')) == ['--adapters', 'm.json', *base]
    for words, message in (
        ([('checkpoint', lora), ('type', 'full')], 'is a lora checkpoint; write --type lora'),
        ([('type', 'multi-lora')], 'takes its adapters from --multi-lora-config'),
        ([], 'one model is served from --checkpoint'),
    ):
        with pytest.raises(SwiftError, match=message):
            words_for(*words)
    done = run('deploy_model.py', '--type', 'multi-lora', '--multi-lora-config', str(tmp_path / 'gone.json'))
    assert done.returncode == 2 and 'gone.json cannot be read' in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.slow
def test_several_processes_train_one_model(tmp_path):
    words = ['--model', 'tiny', '--train_type', 'lora', '--dataset', ROWS + '#40', '--output_dir', str(tmp_path / 'out')]
    done = run('finetune_trainer.py', *words, *QUICK, env={'NPROC_PER_NODE': '2'})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f'checkpoint: {tmp_path}/out/checkpoint-3'
    assert json.loads((tmp_path / 'out' / 'checkpoint-3' / 'trainer_state.json').read_text())['global_step'] == 3


@pytest.mark.slow
def test_several_adapters_are_served(trained, tmp_path):
    import time
    import urllib.request

    from openai import OpenAI

    (tmp_path / 'multi.json').write_text(json.dumps({'model1': trained['lora'], 'model2': trained['lora']}))
    with subprocess.Popen(
        [sys.executable, 'deploy_model.py', '--type', 'multi-lora', '--multi-lora-config', str(tmp_path / 'multi.json'), '--port', '18431', '--local_only'],
        cwd=TOOLKIT, env={**os.environ, 'PYTHONPATH': str(TOOLKIT.parents[1])},
    ) as server:  # fmt: skip
        try:
            client = OpenAI(api_key='EMPTY', base_url='http://127.0.0.1:18431/v1')
            for _ in range(240):
                try:
                    urllib.request.urlopen('http://127.0.0.1:18431/health')
                    break
                except OSError:
                    time.sleep(0.25)
            assert {'model1', 'model2'} <= {model.id for model in client.models.list()}
            said = client.chat.completions.create(model='model2', messages=[{'role': 'user', 'content': 'What is 2 + 3?'}], max_tokens=8, temperature=0)
            assert said.choices[0].message.content == '5'
        finally:
            server.terminate()
