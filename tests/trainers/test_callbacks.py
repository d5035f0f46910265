"""Callbacks seen from outside: what they write, when they stop, what they leave."""

import json
import os
import signal
import sys
from types import ModuleType, SimpleNamespace

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState

from swift.arguments.train import TrainArgs
from swift.core.errors import MissingDependencyError, SwiftError
from swift.trainers.callbacks import callbacks_map, make_callback
from swift.trainers.callbacks.build import add_user_callbacks, build_callbacks
from swift.trainers.callbacks.early_stop import EarlyStopCallback
from swift.trainers.callbacks.interrupt import InterruptCallback, Interrupted
from swift.trainers.callbacks.progress import ProgressCallback, duration
from swift.trainers.callbacks.record import RecordCallback
from swift.trainers.plots import curves, draw, smooth
from swift.trainers.report import ReportCallback, RunFacts, check_trackers
from swift.trainers.state import restore_callbacks


def args_for(folder, **more):
    return SimpleNamespace(output_dir=str(folder), metric_for_best_model='loss', greater_is_better=False, **more)


def run(callbacks, folder, steps=10, max_steps=None, evaluate=()):
    """The calls that a training makes."""
    args, control = args_for(folder), TrainerControl()
    state = TrainerState(max_steps=max_steps or steps, log_history=[])
    for callback in callbacks:
        callback.on_train_begin(args, state, control)
    for step in range(1, steps + 1):
        state.global_step = step
        for callback in callbacks:
            callback.on_step_end(args, state, control)
        logs = {'loss': 3.0 / step, 'learning_rate': 1e-4, 'epoch': step / 10}
        state.log_history.append({**logs, 'step': step})
        for callback in callbacks:
            callback.on_log(args, state, control, logs=logs)
        if step in evaluate:
            metrics = {'eval_loss': 2.0 / step}
            state.log_history.append({**metrics, 'step': step})
            for callback in callbacks:
                callback.on_log(args, state, control, logs=metrics)
                callback.on_evaluate(args, state, control, metrics=metrics)
        if control.should_training_stop:
            break
    for callback in callbacks:
        callback.on_train_end(args, state, control)
    return state, control


def test_logging_jsonl_has_a_line_per_event_and_a_summary(tmp_path):
    run([RecordCallback(facts={'model_parameter_info': 'tiny'})], tmp_path, steps=4, evaluate=(4,))
    lines = [json.loads(line) for line in open(tmp_path / 'logging.jsonl')]
    assert [line.get('loss') for line in lines[:4]] == [3.0, 1.5, 1.0, 0.75]
    assert lines[1]['global_step/max_steps'] == '2/4' and lines[1]['memory(GiB)'] > 0
    assert lines[4]['eval_loss'] == 0.5
    last = lines[-1]
    assert set(last) >= {'model_parameter_info', 'last_model_checkpoint', 'best_model_checkpoint', 'best_metric', 'global_step',
                         'log_history', 'memory', 'train_time', 'eval_loss'}
    assert last['global_step'] == 4 and len(last['log_history']) == 5 and last['eval_loss'] == 0.5
    assert len(lines) == 6


def test_early_stop_counts_and_resumes_its_count():
    args, state, control = args_for('.'), TrainerState(global_step=1), TrainerControl()
    callback = EarlyStopCallback(2)
    for value, stop in ((1.0, False), (0.5, False), (0.6, False), (0.55, True)):
        callback.on_evaluate(args, state, control, metrics={'eval_loss': value})
        assert control.should_training_stop is stop
    saved = TrainerState(stateful_callbacks=[callback])
    fresh = EarlyStopCallback(5)
    restore_callbacks(saved, [fresh])
    assert (fresh.count, fresh.best, fresh.interval) == (2, 0.5, 5)


def test_early_stop_follows_a_metric_that_rises():
    args = SimpleNamespace(metric_for_best_model='rouge-l', greater_is_better=True)
    callback, control = EarlyStopCallback(1), TrainerControl()
    for value, stop in ((10.0, False), (20.0, False), (15.0, True)):
        callback.on_evaluate(args, TrainerState(), control, metrics={'eval_rouge-l': value})
        assert control.should_training_stop is stop


class Stream:
    def __init__(self, terminal):
        self.text, self.terminal = '', terminal

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return self.terminal


def test_progress_in_a_file_is_a_few_plain_lines(tmp_path):
    stream = Stream(False)
    run([ProgressCallback(stream)], tmp_path, steps=1000, evaluate=(500,))
    lines = stream.text.splitlines()
    assert len(lines) <= 45 and '\r' not in stream.text
    assert lines[0].startswith('step 1/1000 | loss 3.0000') and 'step 1000/1000' in lines[-1]
    assert 'step 500/1000 | eval_loss 0.0040' in lines
    assert 'GiB' in lines[-1]


def test_progress_in_a_terminal_is_one_line(tmp_path):
    stream = Stream(True)
    run([ProgressCallback(stream)], tmp_path, steps=20)
    assert stream.text.count('\n') == 1 and stream.text.endswith('\n')
    assert all(len(piece.replace('\x1b[K', '')) < 200 for piece in stream.text.split('\r'))
    assert 'step 20/20 | loss 0.1500' in stream.text
    assert [duration(value) for value in (5, 65, 7260, 100000)] == ['5s', '1m 05s', '2h 01m', '1d 3h']


def test_first_signal_saves_and_stops_second_ends(tmp_path, capfd):
    callback, control = InterruptCallback('sft'), TrainerControl()
    args, state = args_for(tmp_path), TrainerState(global_step=3, max_steps=10)
    before = signal.getsignal(signal.SIGTERM)
    callback.on_train_begin(args, state, control)
    try:
        callback.on_step_end(args, state, control)
        assert not control.should_training_stop
        os.kill(os.getpid(), signal.SIGTERM)
        callback.on_step_end(args, state, control)
        assert control.should_save and control.should_training_stop
        folder = tmp_path / 'checkpoint-3'
        folder.mkdir()
        for name in ('model.safetensors', 'optimizer.pt', 'scheduler.pt', 'trainer_state.json'):
            (folder / name).write_text('x')
        with pytest.raises(Interrupted) as stopped:
            callback.on_train_end(args, state, control)
    finally:
        callback._restore()
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    assert f'swift sft --resume_from_checkpoint {folder}' in capfd.readouterr().err


def test_second_ctrl_c_stops_at_once(tmp_path):
    callback = InterruptCallback('sft')
    callback.on_train_begin(args_for(tmp_path), TrainerState(max_steps=5), TrainerControl())
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_plots_are_drawn_raw_and_smoothed(tmp_path):
    assert smooth([1.0, 1.0, 1.0]) == pytest.approx([1.0, 1.0, 1.0])
    assert smooth([1.0, 2.0]) == pytest.approx([1.0, (0.9 * 1 + 2) / 1.9])
    state, _ = run([], tmp_path, steps=5, evaluate=(5,))
    assert curves(state.log_history)['train/loss'] == ([1, 2, 3, 4, 5], [3.0, 1.5, 1.0, 0.75, 0.6])
    paths = draw(state.log_history, str(tmp_path / 'images'))
    assert {os.path.basename(path) for path in paths} == {'train_loss.png', 'train_learning_rate.png', 'eval_loss.png'}
    assert all(open(path, 'rb').read(8) == b'\x89PNG\r\n\x1a\n' and os.path.getsize(path) > 3000 for path in paths)


def test_tensorboard_gets_every_figure(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run([ReportCallback(['tensorboard'], RunFacts(str(tmp_path), config={'lora_rank': 8}))], tmp_path, steps=3, evaluate=(3,))
    events = EventAccumulator(str(tmp_path / 'runs'))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars('train/loss')] == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert events.Scalars('eval/loss')[0].value == pytest.approx(2 / 3)


def test_wandb_carries_config_and_summary(tmp_path, monkeypatch):
    seen = {'logs': [], 'summary': {}}
    fake = ModuleType('wandb')
    fake.__spec__ = SimpleNamespace()
    logged = SimpleNamespace(log=lambda figures, step: seen['logs'].append((step, figures)), summary=seen['summary'],
                             finish=lambda: seen.update(finished=True))
    fake.init = lambda **settings: seen.update(settings) or logged
    monkeypatch.setitem(sys.modules, 'wandb', fake)
    run([ReportCallback(['wandb'], RunFacts(str(tmp_path), 'my-run', {'lora_rank': 8}))], tmp_path, steps=2, evaluate=(2,))
    assert seen['config'] == {'lora_rank': 8} and seen['name'] == 'my-run' and seen['finished']
    assert seen['logs'][0] == (1, {'train/loss': 3.0, 'train/learning_rate': 1e-4, 'train/epoch': 0.1, 'train/global_step': 1})
    assert seen['summary'] == {'loss': 1.5, 'eval_loss': 1.0}


def test_a_missing_or_unknown_tracker_is_one_line(monkeypatch):
    monkeypatch.setattr('swift.trainers.report.importlib.util.find_spec', lambda name: None)
    with pytest.raises(MissingDependencyError, match='--report_to wandb needs the package wandb'):
        check_trackers(['wandb'])
    with pytest.raises(SwiftError, match="did you mean 'wandb'"):
        check_trackers(['wanbd'])
    assert check_trackers(['none']) == [] == check_trackers([])


def test_a_tracker_that_fails_does_not_end_the_training(tmp_path, monkeypatch, capfd):
    class Broken:
        def __init__(self, facts):
            raise ConnectionError('no network')

    monkeypatch.setattr('swift.trainers.report.trackers_map', {'broken': Broken})
    run([ReportCallback(['broken'], RunFacts(str(tmp_path)))], tmp_path, steps=3)
    assert capfd.readouterr().err.count('no network') == 1


def test_user_callbacks_by_name(tmp_path):
    class Plain(TrainerCallback):
        pass

    class WithTrainer(TrainerCallback):
        def __init__(self, args, trainer):
            self.args, self.trainer = args, trainer

    class Impossible(TrainerCallback):
        def __init__(self, one, two, three):
            pass

    for name, value in (('plain', Plain), ('with_trainer', WithTrainer), ('ready', Plain()), ('impossible', Impossible)):
        callbacks_map.replace(name, value)
    try:
        handler = SimpleNamespace(callbacks=build_callbacks(TrainArgs(report_to=[], early_stop_interval=3), str(tmp_path)))
        names = [type(callback).__name__ for callback in handler.callbacks]
        assert names == ['EarlyStopCallback', 'ProgressCallback', 'RecordCallback', 'TowerCheckpointing', 'PlotCallback', 'KeepLearningRate',
                         'InterruptCallback']
        trainer = SimpleNamespace(
            add_callback=handler.callbacks.append,
            pop_callback=lambda kind: handler.callbacks.pop([type(c) for c in handler.callbacks].index(kind)),
        )
        add_user_callbacks(trainer, TrainArgs(callbacks=['plain', 'with_trainer', 'ready']))
        assert [type(c) for c in handler.callbacks[-4:]] == [Plain, WithTrainer, Plain, InterruptCallback]
        assert handler.callbacks[-3].trainer is trainer
        with pytest.raises(SwiftError, match='--callbacks impossible'):
            make_callback('impossible', None, trainer)
        with pytest.raises(SwiftError, match="unknown callback 'early_stp'"):
            make_callback('early_stp', None, trainer)
    finally:
        for name in ('plain', 'with_trainer', 'ready', 'impossible'):
            del callbacks_map[name]
