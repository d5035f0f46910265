"""A merged model says what base + adapter say, is written whole, and overwrites nothing."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from swift.core.errors import SwiftError
from swift.export.merge import is_merge_of, merge_lora
from swift.pipelines.export import export_main, merge_lora_main
from tests.export.conftest import make_adapter

IDS = torch.randint(0, 600, (2, 40), generator=torch.Generator().manual_seed(9))


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits.float()


def plain(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def test_merged_is_base_plus_adapter_for_plain_transformers(tiny_dir, adapter):
    output = merge_lora_main(['--adapters', adapter])
    assert output == adapter + '-merged'
    wanted = logits(PeftModel.from_pretrained(plain(tiny_dir), adapter, adapter_name='default'))
    found, bare = logits(plain(output)), logits(plain(tiny_dir))
    assert (found - wanted).abs().max() < 1e-4
    assert (bare - wanted).abs().max() > 0.1  # the adapter does something
    question = [{'role': 'user', 'content': 'hi'}]
    ours, theirs = AutoTokenizer.from_pretrained(output), AutoTokenizer.from_pretrained(tiny_dir)
    assert ours.apply_chat_template(question) == theirs.apply_chat_template(question)
    with open(os.path.join(output, 'generation_config.json')) as file:
        assert json.load(file)['eos_token_id'] in (2, [2])
    with open(os.path.join(output, 'merge_report.json')) as file:
        report = json.load(file)
    assert report['merged'][0]['max_diff'] < 1e-4
    assert report['merged'][0]['effect'] > 1e-3
    assert report['read_back_max_diff'] == 0
    assert is_merge_of(output, [adapter])
    assert os.stat(os.path.join(output, 'model.safetensors')).st_mode & 0o044  # others may read it
    # a second run leaves everything as it is
    before = {name: os.stat(os.path.join(output, name)).st_mtime_ns for name in os.listdir(output)}
    with pytest.raises(SwiftError, match='exists already; .*--exist_ok true'):
        merge_lora_main(['--adapters', adapter])
    assert {name: os.stat(os.path.join(output, name)).st_mtime_ns for name in os.listdir(output)} == before
    # unless it is told to
    assert export_main(['--adapters', adapter, '--merge_lora', 'true', '--exist_ok', 'true']) == output
    assert {name: os.stat(os.path.join(output, name)).st_mtime_ns for name in os.listdir(output)} != before


def test_sums_are_made_in_float32_and_rounded_once(half_dir, tmp_path):
    adapter = make_adapter(half_dir, tmp_path / 'adapter', 3)
    output = merge_lora_main(['--adapters', adapter, '--output_dir', str(tmp_path / 'out')])
    merged = AutoModelForCausalLM.from_pretrained(output, dtype='auto')
    assert merged.dtype == torch.bfloat16
    exact = PeftModel.from_pretrained(plain(half_dir), adapter).merge_and_unload()
    for name, weight in exact.state_dict().items():
        assert torch.equal(merged.state_dict()[name], weight.to(torch.bfloat16)), name


def test_several_adapters_are_added_one_after_the_other(tiny_dir, adapter, second_adapter, tmp_path):
    output = merge_lora_main(['--adapters', adapter, second_adapter, '--model', tiny_dir, '--output_dir', str(tmp_path / 'both')])
    model = PeftModel.from_pretrained(plain(tiny_dir), adapter).merge_and_unload()
    model = PeftModel.from_pretrained(model, second_adapter).merge_and_unload()
    assert (logits(plain(output)) - logits(model)).abs().max() < 1e-4
    assert is_merge_of(output, [adapter, second_adapter])
    assert not is_merge_of(output, [adapter])


@pytest.mark.parametrize('safe', ['true', 'false'])
def test_shards_and_formats(tiny_dir, adapter, tmp_path, safe):
    output = merge_lora_main(
        ['--adapters', adapter, '--output_dir', str(tmp_path / 'out'), '--max_shard_size', '200KB', '--safe_serialization', safe]
    )
    ending = '.safetensors' if safe == 'true' else '.bin'
    shards = [name for name in os.listdir(output) if name.endswith(ending)]
    assert len(shards) >= 2
    wanted = logits(PeftModel.from_pretrained(plain(tiny_dir), adapter))
    assert (logits(plain(output)) - wanted).abs().max() < 1e-4


def test_a_foreign_directory_is_never_replaced(adapter, tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    with pytest.raises(SwiftError, match='files that no merge wrote'):
        merge_lora_main(['--adapters', adapter, '--output_dir', str(tmp_path), '--exist_ok', 'true'])
    assert os.listdir(tmp_path) == ['thesis.txt']


def test_a_failure_leaves_nothing_behind(adapter, tmp_path, monkeypatch):
    from swift.export import merge

    def disk_full(*_, **__):
        raise OSError('no space left on device')

    monkeypatch.setattr(merge, '_copy_settings', disk_full)
    with pytest.raises(OSError, match='no space'):
        merge_lora_main(['--adapters', adapter, '--output_dir', str(tmp_path / 'out')])
    assert os.listdir(tmp_path) == []


def test_a_wrong_base_is_told_with_both_names(adapter, tmp_path):
    from tests.helpers.tiny import save_tiny

    other = save_tiny(tmp_path / 'narrower', hidden=32)
    with pytest.raises(SwiftError) as error:
        merge_lora_main(['--adapters', adapter, '--model', other, '--output_dir', str(tmp_path / 'out')])
    assert 'narrower' in str(error.value)
    assert 'was trained on' in str(error.value)
    assert '\n' not in str(error.value)


def test_the_function_of_the_documentation(tiny_dir, adapter, tmp_path):
    from swift.arguments import ExportArguments

    args = ExportArguments(adapters=[adapter], merge_lora=True, output_dir=str(tmp_path / 'out'))
    assert merge_lora(args, device_map='cpu') == str(tmp_path / 'out')
    with pytest.raises(SwiftError, match='exists already'):
        merge_lora(args)
    assert merge_lora(args, replace_if_exists=True) == str(tmp_path / 'out')


def test_settings_go_along(tiny_dir, adapter, tmp_path):
    checkpoint = tmp_path / 'checkpoint-1'
    shutil.copytree(adapter, checkpoint)
    settings = {'command': 'sft', 'model': tiny_dir, 'system': 'Be brief.', 'sources': {'model': 'command line', 'system': 'command line'}}
    (checkpoint / 'args.json').write_text(json.dumps(settings))
    output = merge_lora_main(['--adapters', str(checkpoint)])
    with open(os.path.join(output, 'args.json')) as file:
        assert json.load(file)['system'] == 'Be brief.'


def test_export_with_nothing_to_do(adapter):
    with pytest.raises(SwiftError, match='nothing'):
        export_main(['--adapters', adapter])


class FakeHub:
    """Records what a hub client is asked for."""

    def __init__(self, calls, known=False, **kwargs):
        self.calls, self.known = calls, known
        calls.append(('client', kwargs))

    def create_repo(self, repo_id, **kwargs):
        self.calls.append(('create', repo_id, kwargs))
        return SimpleNamespace(repo_id=repo_id)

    def repo_exists(self, repo_id, **kwargs):
        return self.known

    def upload_folder(self, repo_id, folder_path, **kwargs):
        self.calls.append(('upload', repo_id, sorted(os.listdir(folder_path)), kwargs))


PUSH = ['--push_to_hub', 'true', '--hub_model_id', 'me/mine', '--hub_token', 'secret', '--hub_private_repo', 'true', '--commit_message', 'hello']


def test_upload_to_hugging_face(adapter, tmp_path, monkeypatch):
    import huggingface_hub

    calls = []
    monkeypatch.setattr(huggingface_hub, 'HfApi', lambda **kwargs: FakeHub(calls, **kwargs))
    export_main(['--adapters', adapter, '--merge_lora', 'true', '--output_dir', str(tmp_path / 'out'), '--use_hf', 'true', *PUSH])
    assert calls[0] == ('client', {'token': 'secret'})
    assert calls[1] == ('create', 'me/mine', {'private': True, 'exist_ok': True})
    kind, repo, files, settings = calls[2]
    assert (kind, repo, settings) == ('upload', 'me/mine', {'commit_message': 'hello'})
    assert {'config.json', 'model.safetensors', 'tokenizer.json', 'generation_config.json'} <= set(files)


def test_upload_to_modelscope(adapter, monkeypatch):
    api = pytest.importorskip('modelscope.hub.api')
    calls = []
    monkeypatch.setattr(api, 'HubApi', lambda: FakeHub(calls))
    export_main(['--adapters', adapter, *PUSH])
    assert calls[1] == ('create', 'me/mine', {'repo_type': 'model', 'visibility': 'private', 'token': 'secret'})
    assert calls[2][:2] == ('upload', 'me/mine')
    assert 'adapter_model.safetensors' in calls[2][2]


def test_a_training_uploads_its_last_checkpoint_without_what_only_resumes(tiny_dir, tmp_path, monkeypatch):
    import huggingface_hub

    from swift import Swift

    calls = []
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(huggingface_hub, 'HfApi', lambda **kwargs: FakeHub(calls, **kwargs))
    (tmp_path / 'rows.jsonl').write_text('{"query": "a", "response": "b"}\n' * 4)
    result = Swift.sft(model=tiny_dir, dataset=str(tmp_path / 'rows.jsonl'), max_steps=2, output_dir=str(tmp_path / 'out'),
                       report_to='none', push_to_hub=True, hub_model_id='me/mine', use_hf=True)  # fmt: skip
    kind, repo, files, settings = calls[2]
    assert (kind, repo, settings['commit_message']) == ('upload', 'me/mine', '2 steps of swift sft')
    assert {'adapter_model.safetensors', 'adapter_config.json', 'tokenizer.json', 'args.json'} <= set(files)
    assert not {'optimizer.pt', 'rng_state.pth', 'manifest.json'} & set(files)
    kept = os.listdir(result['last_model_checkpoint'])
    assert {'optimizer.pt', 'rng_state.pth', 'manifest.json'} <= set(kept)
    assert not [name for name in os.listdir(result['run_dir']) if name.startswith('.upload')]


def test_a_failed_upload_is_one_line(adapter, monkeypatch):
    import huggingface_hub

    def refuse(**_):
        raise ConnectionError('401\nUnauthorized')

    monkeypatch.setattr(huggingface_hub, 'HfApi', refuse)
    with pytest.raises(SwiftError, match='me/mine was not uploaded to Hugging Face: ConnectionError: 401 Unauthorized') as error:
        export_main(['--adapters', adapter, '--use_hf', 'true', *PUSH])
    assert '\n' not in str(error.value)
