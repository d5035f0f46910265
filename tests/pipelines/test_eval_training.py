"""Questions asked while a model is trained: the figures of swift eval, at every evaluation."""

import json

import pytest

from swift.core.errors import SwiftError
from swift.pipelines.eval import eval_main
from swift.pipelines.train import sft_main

SUMS = 'examples/data/arithmetic_heldout.jsonl'


@pytest.fixture
def flags(tmp_path, monkeypatch):
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path / 'cache'))
    return dict(model='tiny', dataset='examples/data/arithmetic.jsonl#40', val_dataset='examples/data/arithmetic.jsonl#4', max_steps=2, report_to='none',
                output_dir=str(tmp_path / 'out'), eval_steps=1, eval_on_start=True, eval_dataset=SUMS, eval_limit=20)  # fmt: skip


def test_the_figures_are_those_of_swift_eval(flags, tmp_path):
    run = sft_main({**flags, 'max_new_tokens': 16, 'metric_for_best_model': 'arithmetic_heldout_accuracy', 'learning_rate': 1e-2})
    seen = [line for line in run['log_history'] if 'eval_loss' in line]
    assert [line['step'] for line in seen] == [0, 1, 2]
    report = eval_main(dict(model='tiny', eval_dataset=SUMS, eval_limit=20, max_new_tokens=16, eval_output_dir=str(tmp_path / 'eval')))
    assert seen[0]['eval_arithmetic_heldout_accuracy'] == report['datasets']['arithmetic_heldout']['metrics']['accuracy']['mean'] > 0.3
    trained = eval_main(dict(adapters=run['last_model_checkpoint'], eval_dataset=SUMS, eval_limit=20, max_new_tokens=16, eval_output_dir=str(tmp_path / 'eval')))
    assert seen[2]['eval_arithmetic_heldout_accuracy'] == trained['datasets']['arithmetic_heldout']['metrics']['accuracy']['mean']
    assert run['best_metric'] == max(line['eval_arithmetic_heldout_accuracy'] for line in seen[1:])
    with open(f'{run["run_dir"]}/eval_answers.jsonl') as file:
        rows = [json.loads(line) for line in file]
    assert [(row['step'], row['index']) for row in rows] == [(step, index) for step in range(3) for index in range(20)]
    first = [row['scores']['accuracy'] for row in rows[:20]]
    assert sum(first) / 20 == seen[0]['eval_arithmetic_heldout_accuracy']


def test_rows_that_can_not_be_asked_are_wrong_answers(flags, tmp_path, caplog):
    rows = [{'query': '1 + 1 = ?', 'response': '2'}, {'query': '1 + 2 = ?', 'response': '3'}, {'nothing': 'here'}, {'query': 'x ' * 3000, 'response': 'x'}]
    (tmp_path / 'asked.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    run = sft_main({**flags, 'eval_dataset': str(tmp_path / 'asked.jsonl'), 'eval_limit': None, 'max_new_tokens': 16, 'max_steps': 1})
    [first, *_] = [line for line in run['log_history'] if 'eval_loss' in line]
    assert first['eval_asked_accuracy'] == 0.5
    assert '1 of 3 questions of the evaluation were not asked' in caplog.text


@pytest.mark.parametrize(
    ('more', 'words'),
    [
        ({'val_dataset': []}, '--eval_dataset has no effect without validation data'),
        ({'eval_dataset': []}, '--eval_limit has no effect without --eval_dataset'),
        ({'eval_use_evalscope': True}, 'swift asks questions itself: --eval_dataset'),
        ({'task_type': 'seq_cls'}, '--eval_dataset'),
    ],
)
def test_flags_without_effect_are_told(flags, more, words):
    with pytest.raises(SwiftError, match=words):
        sft_main({**flags, **more})
