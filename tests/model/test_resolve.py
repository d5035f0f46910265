"""Names → directories: runs, adapters, ids, and what is said when nothing is there."""

import json
import shutil

import pytest

from swift.arguments.model import ModelArgs
from swift.core.errors import CheckpointError, ModelError
from swift.core.runs import checkpoints
from swift.model import find_model, model_info, resolve_model_dir
from swift.model.resolve import TINY_DIR, last_complete, what_is_missing


def adapter(folder, base):
    folder.mkdir(parents=True)
    (folder / 'adapter_config.json').write_text(json.dumps({'base_model_name_or_path': base, 'peft_type': 'LORA'}))
    import torch
    from safetensors.torch import save_file

    save_file({'a.lora_A.weight': torch.zeros(8, 4)}, folder / 'adapter_model.safetensors')
    return folder


def test_a_run_means_its_last_complete_checkpoint(tiny_dir, tmp_path):
    run = tmp_path / 'run'
    for step in (9, 10):
        shutil.copytree(tiny_dir, run / f'checkpoint-{step}')
    (run / 'args.json').write_text('{}')
    assert [path.rpartition('-')[2] for _, path in checkpoints(str(run))] == ['9', '10']
    assert resolve_model_dir(str(run)).model_dir == str(run / 'checkpoint-10')

    weights = run / 'checkpoint-10' / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-100])  # killed while writing
    assert what_is_missing(str(run / 'checkpoint-10')) == 'model.safetensors is cut short'
    assert resolve_model_dir(str(run)).model_dir == str(run / 'checkpoint-9')

    (run / 'checkpoint-9' / 'model.safetensors').unlink()
    with pytest.raises(CheckpointError, match='no complete checkpoint'):
        last_complete(str(run))


def test_an_adapter_means_its_base_and_itself(tiny_dir, tmp_path):
    path = resolve_model_dir(str(adapter(tmp_path / 'run' / 'checkpoint-3', tiny_dir)))
    assert (path.model_dir, path.adapters) == (tiny_dir, (str(tmp_path / 'run' / 'checkpoint-3'),))
    assert resolve_model_dir(str(tmp_path / 'run')) == path.__class__(tiny_dir, path.adapters, str(tmp_path / 'run'))


def test_base_and_adapters_given_apart(tiny_dir, tmp_path):
    one, two = (str(adapter(tmp_path / name / 'checkpoint-1', '/gone')) for name in 'ab')
    found = find_model(ModelArgs(model=tiny_dir, adapters=[str(tmp_path / 'a'), two]))
    assert (found.model_dir, found.adapters) == (tiny_dir, (one, two))
    with pytest.raises(CheckpointError, match='base model .*/gone, which does not exist.* --model'):
        find_model(ModelArgs(adapters=[one]))


def test_the_base_is_found_through_args_json(tiny_dir, tmp_path):
    found = adapter(tmp_path / 'checkpoint-1', '/moved/away')
    (tmp_path / 'args.json').write_text(json.dumps({'model': tiny_dir}))
    assert model_info(ModelArgs(adapters=[str(found)])).model_dir == tiny_dir


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ModelError, match='no model was named'):
        find_model(ModelArgs())
    with pytest.raises(ModelError, match='does not exist'):
        resolve_model_dir('./nowhere')
    with pytest.raises(ModelError, match='no config.json, adapter_config.json or checkpoint-N'):
        resolve_model_dir(str(tmp_path))
    (tmp_path / 'file').write_text('')
    with pytest.raises(ModelError, match='is a file'):
        resolve_model_dir(str(tmp_path / 'file'))


def test_a_folder_of_one_run_is_that_run_and_of_several_ambiguous(tiny_dir, tmp_path):
    shutil.copytree(tiny_dir, tmp_path / 'v0-20260101-120000' / 'checkpoint-1')
    assert resolve_model_dir(str(tmp_path)).model_dir == str(tmp_path / 'v0-20260101-120000' / 'checkpoint-1')
    shutil.copytree(tiny_dir, tmp_path / 'v1-20260102-120000' / 'checkpoint-1')
    with pytest.raises(ModelError, match='holds 2 runs; say which one: v0-2026'):
        resolve_model_dir(str(tmp_path))


def test_an_id_is_downloaded(tiny_dir, monkeypatch):
    asked = {}

    def download(name, **kwargs):
        asked.update(kwargs, name=name)
        return tiny_dir

    monkeypatch.setattr('swift.core.hub.download_model', download)
    found = resolve_model_dir('org/model', revision='v2', use_hf=True, token='t')
    assert (found.model_dir, found.name) == (tiny_dir, 'org/model')
    assert asked == {'name': 'org/model', 'revision': 'v2', 'use_hf': True, 'token': 't'}


def test_the_embedded_model_or_a_clear_word(monkeypatch, tmp_path, tiny_dir):
    monkeypatch.setattr('swift.model.resolve.TINY_DIR', str(tmp_path))
    with pytest.raises(ModelError, match='embedded model tiny is not part of this installation'):
        resolve_model_dir('tiny')
    monkeypatch.setattr('swift.model.resolve.TINY_DIR', tiny_dir)
    assert resolve_model_dir('tiny').model_dir == resolve_model_dir('swift/tiny-chat').model_dir == tiny_dir
    assert TINY_DIR.endswith('tiny_chat')
