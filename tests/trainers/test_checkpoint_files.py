"""Atomic checkpoints: whatever point the writer dies at, the last complete one is whole and found."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from swift.core.errors import CheckpointError
from swift.core.runs import checkpoints
from swift.trainers import checkpoint as module
from swift.trainers.checkpoint import CheckpointWriter, is_complete
from swift.trainers.resume import MANIFEST, find_last_complete, read_manifest, resolve_resume, what_is_missing
from swift.trainers.rundir import clean_leftovers, new_run_dir, run_dir_for


def part(content=b'x' * 1000):
    def write(folder):
        for name in ('model.safetensors', 'optimizer.pt', 'scheduler.pt', 'rng_state.pth', 'trainer_state.json', 'loader_state.json'):
            with open(os.path.join(folder, name), 'wb') as stream:
                stream.write(content)

    return write


def test_a_checkpoint_has_everything_and_a_manifest(tmp_path):
    writer = CheckpointWriter(tmp_path, texts={'args.json': '{"a": 1}'}, facts={'template_sha256': 'abc'})
    path = writer.write(3, [part()])
    assert path == str(tmp_path / 'checkpoint-3')
    manifest = read_manifest(path)
    assert manifest['step'] == 3 and manifest['template_sha256'] == 'abc' and manifest['world_size'] == 1
    assert manifest['files']['optimizer.pt'] == 1000 and manifest['files']['args.json'] == 8
    assert set(os.listdir(tmp_path)) == {'checkpoint-3'}
    assert is_complete(path)


class Died(BaseException):
    """Stands for kill -9 inside the process under test: no handler of ours may catch it."""


@pytest.mark.parametrize('again', [False, True], ids=['new step', 'same step again'])
def test_death_at_every_system_call_leaves_a_complete_checkpoint(tmp_path, monkeypatch, again):
    """The n-th file operation dies, for every n until the save gets through."""
    calls = {'count': 0, 'die_at': None}

    def guard(function):
        def wrapped(*args, **kwargs):
            calls['count'] += 1
            if calls['count'] == calls['die_at']:
                raise Died
            return function(*args, **kwargs)

        return wrapped

    survived = 0
    for die_at in range(1, 200):
        run = tmp_path / f'run{die_at}'
        writer = CheckpointWriter(run, save_total_limit=1, links=True)
        writer.write(1, [part(b'one')])
        with monkeypatch.context() as patch:
            for name in ('rename', 'fsync', 'makedirs', 'replace', 'symlink'):
                patch.setattr(module.os, name, guard(getattr(os, name)))
            patch.setattr(module.shutil, 'rmtree', guard(module.shutil.rmtree))
            calls.update(count=0, die_at=die_at)
            try:
                writer.write(1 if again else 2, [part(b'later')])
                finished = True
            except Died:
                finished = False
        clean_leftovers(str(run))
        last = find_last_complete(str(run))
        assert last is not None, f'nothing complete after dying at call {die_at}'
        content = open(os.path.join(last, 'optimizer.pt'), 'rb').read()
        assert content in (b'one', b'later')
        assert not [name for name in os.listdir(run) if name.endswith(('.tmp', '.old', '.trash'))]
        for _, path in checkpoints(str(run)):
            assert is_complete(path), f'{path} is half a checkpoint after dying at call {die_at}'
        if finished:
            assert content == b'later'
            break
        survived += 1
    assert finished and survived > 10


WRITER = """
import sys
from swift.trainers.checkpoint import CheckpointWriter
def part(folder):
    for name in ('model.safetensors', 'optimizer.pt', 'scheduler.pt', 'trainer_state.json'):
        with open(f'{folder}/{name}', 'wb') as stream:
            stream.write(b'z' * 200_000)
writer = CheckpointWriter(sys.argv[1], save_total_limit=2)
step = int(sys.argv[2]) + 1
writer.write(step, [part])
print('ready', flush=True)
while True:
    step += 1
    writer.write(step, [part])
"""


def test_kill_9_at_random_moments(tmp_path):
    """A process that does nothing but save is killed six times; each time the next one starts from a whole checkpoint."""
    draw, step = random.Random(0), 0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, '-c', WRITER, str(tmp_path), str(step)], stdout=subprocess.PIPE,
                                   cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
        assert process.stdout.readline() == b'ready\n'
        time.sleep(0.05 + draw.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        process.wait()
        last = find_last_complete(str(tmp_path))
        for number, path in checkpoints(str(tmp_path)):
            assert is_complete(path), f'{path}: {what_is_missing(path)}'
            step = max(step, number)
        assert last is not None
    assert step >= 6


def test_rotation_keeps_best_and_last_and_only_after_the_new_one_is_there(tmp_path):
    writer = CheckpointWriter(tmp_path, save_total_limit=2, links=True)
    for step in (5, 10, 15, 100):
        def during(folder, step=step):
            part()(folder)
            if step > 5:  # while the new one is being written nothing is gone yet
                assert find_last_complete(str(tmp_path)) is not None

        writer.write(step, [during], best_step=5)
    assert [number for number, _ in checkpoints(str(tmp_path))] == [5, 100]
    assert os.readlink(tmp_path / 'last') == 'checkpoint-100' and os.readlink(tmp_path / 'best') == 'checkpoint-5'
    writer = CheckpointWriter(tmp_path, save_total_limit=1, links=True)
    writer.write(110, [part()], best_step=5)
    assert [number for number, _ in checkpoints(str(tmp_path))] == [5, 110]  # best is kept besides the last
    writer.write(120, [part()], best_step=120)
    assert [number for number, _ in checkpoints(str(tmp_path))] == [120]
    assert resolve_resume(str(tmp_path / 'best'), 'unused') == str(tmp_path / 'checkpoint-120')


def test_disk_full_names_the_checkpoint_to_continue_from(tmp_path):
    writer = CheckpointWriter(tmp_path)
    writer.write(1, [part()])

    def full(folder):
        part()(folder)
        raise OSError(28, 'No space left on device')

    with pytest.raises(CheckpointError, match=r'checkpoint-2 .*No space left.*--resume_from_checkpoint .*checkpoint-1'):
        writer.write(2, [full])
    assert os.listdir(tmp_path) == ['checkpoint-1']


@pytest.mark.parametrize('damage', ['truncate', 'remove', 'no manifest'])
def test_an_incomplete_checkpoint_is_refused_and_the_right_one_named(tmp_path, damage):
    writer = CheckpointWriter(tmp_path)
    writer.write(1, [part()])
    bad = writer.write(2, [part()])
    if damage == 'truncate':
        os.truncate(os.path.join(bad, 'optimizer.pt'), 10)
    elif damage == 'remove':
        os.remove(os.path.join(bad, 'model.safetensors'))
    else:
        os.remove(os.path.join(bad, MANIFEST))
        os.remove(os.path.join(bad, 'trainer_state.json'))
    with pytest.raises(CheckpointError, match=r'checkpoint-2 is incomplete.*checkpoint-1'):
        resolve_resume(bad, str(tmp_path))
    assert resolve_resume(True, str(tmp_path)) == str(tmp_path / 'checkpoint-1')
    assert resolve_resume(str(tmp_path), 'elsewhere') == str(tmp_path / 'checkpoint-1')
    usable = damage != 'remove'
    assert (what_is_missing(bad, only_model=True) is None) == usable


def test_save_only_model_can_be_used_for_weights_only(tmp_path):
    def weights(folder):
        open(os.path.join(folder, 'adapter_model.safetensors'), 'wb').write(b'w')
        open(os.path.join(folder, 'trainer_state.json'), 'w').write('{}')

    path = CheckpointWriter(tmp_path).write(4, [weights])
    with pytest.raises(CheckpointError, match='optimizer.pt is missing .*--resume_only_model'):
        resolve_resume(path, str(tmp_path))
    assert resolve_resume(path, str(tmp_path), only_model=True) == path


def test_foreign_checkpoint_without_manifest_is_accepted(tmp_path):
    folder = tmp_path / 'checkpoint-7'
    folder.mkdir()
    part()(str(folder))
    assert resolve_resume(str(folder), str(tmp_path)) == str(folder)


def test_resume_values(tmp_path):
    assert resolve_resume(None, 'x') is None and resolve_resume('false', 'x') is None
    with pytest.raises(CheckpointError, match='no complete checkpoint below --output_dir'):
        resolve_resume('true', str(tmp_path))
    with pytest.raises(CheckpointError, match='no such folder'):
        resolve_resume(str(tmp_path / 'nothing'), str(tmp_path))
    old, new = new_run_dir(str(tmp_path)), new_run_dir(str(tmp_path))
    CheckpointWriter(old).write(9, [part()])
    assert resolve_resume('true', str(tmp_path)) == os.path.join(old, 'checkpoint-9')  # the newer run has none
    CheckpointWriter(new).write(1, [part()])
    assert resolve_resume(str(tmp_path), 'x') == os.path.join(new, 'checkpoint-1')


def test_run_folders_are_numbered_and_never_shared(tmp_path):
    first, second = new_run_dir(str(tmp_path / 'out')), new_run_dir(str(tmp_path / 'out'))
    assert os.path.basename(first).startswith('v0-') and os.path.basename(second).startswith('v1-')
    plain = new_run_dir(str(tmp_path / 'plain'), add_version=False)
    assert plain == str(tmp_path / 'plain')
    CheckpointWriter(plain).write(1, [part()])
    with pytest.raises(CheckpointError, match='--add_version is false'):
        new_run_dir(plain, add_version=False)


def test_a_continued_run_stays_in_its_folder_a_branch_gets_its_own(tmp_path):
    out = str(tmp_path / 'out')
    run = new_run_dir(out)
    writer = CheckpointWriter(run)
    one, two = writer.write(1, [part()]), writer.write(2, [part()])
    assert run_dir_for(out, True, two) == run
    assert os.path.basename(run_dir_for(out, True, one)).startswith('v1-')
    assert run_dir_for(str(tmp_path / 'other'), True, two).startswith(str(tmp_path / 'other'))
    plain = new_run_dir(str(tmp_path / 'plain'), False)
    only = CheckpointWriter(plain).write(1, [part()])
    assert run_dir_for(plain, False, only) == plain
