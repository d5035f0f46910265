"""Programs with environments of their own: how they are called and read, and (slow) one of them for real."""

import json
import sys

import pytest

from swift import eval_main
from swift.arguments import parse_args
from swift.core.errors import SwiftError
from swift.pipelines import eval_backends
from tests.pipelines.conftest import write_rows


def args_of(**given):
    return parse_args('eval', {'model': 'm', 'eval_url': 'http://127.0.0.1:9/v1', **given}, quiet=True)


def test_the_command_of_the_harness():
    args = args_of(eval_dataset=['gsm8k', 'arc'], eval_backend='lm-eval', eval_limit=3, max_new_tokens=8,
                   extra_eval_args={'include_path': 'tasks', 'num_fewshot': 2, 'write_out': True, 'verbosity': None})  # fmt: skip
    words = eval_backends.harness_words(args, 'http://h/v1', 'm', 'out')
    shown = ' '.join(words)
    assert '--model local-chat-completions --model_args model=m,base_url=http://h/v1/chat/completions,num_concurrent=16' in shown
    assert '--tasks gsm8k,arc --output_path out' in shown and '--limit 3' in shown and '--apply_chat_template' in words
    assert '--gen_kwargs temperature=0,max_gen_toks=8' in shown and '--include_path tasks --num_fewshot 2 --write_out' in shown
    assert '--verbosity' not in words


def test_the_command_of_evalscope():
    args = args_of(eval_dataset=['gsm8k'], eval_backend='EvalScope', eval_limit=3, api_key='k', extra_eval_args={'dataset_args': {'gsm8k': {'few_shot_num': 0}}})
    words = eval_backends.scope_words(args, 'http://h/v1', 'm', 'out')
    assert words[:9] == ['eval', '--model', 'm', '--api-url', 'http://h/v1', '--api-key', 'k', '--eval-type', 'openai_api']
    assert words[words.index('--dataset-args') + 1] == '{"gsm8k": {"few_shot_num": 0}}' and words[words.index('--limit') + 1] == '3'


def test_what_the_harness_wrote_becomes_a_report(tmp_path):
    folder = tmp_path / 'out' / 'm'
    folder.mkdir(parents=True)
    figures = {'alias': 't', 'exact_match,none': 0.5, 'exact_match_stderr,none': 0.1}
    (folder / 'results_2026.json').write_text(json.dumps({'results': {'t': figures}, 'n-samples': {'t': {'original': 9, 'effective': 4}}}))
    (folder / 'samples_t_2026.jsonl').write_text(json.dumps({'doc_id': 0, 'doc': {'q': '1'}, 'target': '2', 'filtered_resps': ['3'], 'metrics': ['exact_match'], 'exact_match': 0.0}))
    part = eval_backends.harness_report(str(tmp_path))['t']
    assert part['metrics'] == {'exact_match': {'mean': 0.5, 'count': 4, 'low': pytest.approx(0.304, abs=1e-3), 'high': pytest.approx(0.696, abs=1e-3)}}
    assert part['items'] == [{'index': 0, 'question': '{"q": "1"}', 'reference': '2', 'response': '3', 'scores': {'exact_match': 0.0}}]


def test_reports_of_version_2_of_evalscope_name_their_metrics_elsewhere(tmp_path):
    reports, reviews = (tmp_path / 'time' / name / 'm' for name in ('reports', 'reviews'))
    reports.mkdir(parents=True)
    reviews.mkdir(parents=True)
    metrics = [
        {'identity': {'name': 'accuracy', 'aggregation': 'mean', 'dimensions': {}}, 'num': 4, 'score': 0.5},
        {'identity': {'name': 'pass', 'aggregation': 'max', 'dimensions': {'k': 2}}, 'num': 4, 'score': 0.75},
    ]
    (reports / 'general_qa.json').write_text(json.dumps({'schema_version': 2, 'dataset_name': 'general_qa', 'metrics': metrics}))
    said = [{'role': 'user', 'content': '1 + 1?'}, {'role': 'assistant', 'content': '2'}]
    row = {'index': 0, 'target': ['2'], 'messages': said, 'sample_score': {'score': {'value': {'accuracy': 1.0}, 'status': 'success'}}}
    (reviews / 'general_qa_example.jsonl').write_text(json.dumps(row) + '\n')
    part = eval_backends.scope_report(str(tmp_path))['general_qa']
    assert part['metrics'] == {'accuracy': {'mean': 0.5, 'count': 4}, 'pass (k 2, max)': {'mean': 0.75, 'count': 4}}
    assert part['items'] == [{'index': 0, 'question': '1 + 1?', 'reference': ['2'], 'response': '2', 'scores': {'accuracy': 1.0}}]


def test_what_evalscope_wrote_becomes_a_report(tmp_path):
    folder = tmp_path / '2026' / 'reports' / 'm'
    folder.mkdir(parents=True)
    (folder / 'gsm8k.json').write_text(json.dumps({'dataset_name': 'gsm8k', 'metrics': [{'name': 'mean_acc', 'score': 0.75, 'num': 8}]}))
    assert eval_backends.scope_report(str(tmp_path))['gsm8k']['metrics'] == {'mean_acc': {'mean': 0.75, 'count': 8}}


def test_what_is_missing_is_told_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(SwiftError, match='OpenCompass is reached through EvalScope'):
        eval_main({'eval_url': 'http://127.0.0.1:9/v1', 'eval_dataset': ['x'], 'eval_backend': 'OpenCompass'})
    monkeypatch.setenv('SWIFT_EVAL_ENV', str(tmp_path))
    with pytest.raises(SwiftError, match='has no bin/lm_eval; install lm-eval'):
        eval_main({'eval_url': 'http://127.0.0.1:9/v1', 'eval_dataset': ['x'], 'eval_backend': 'lm-eval'})


def test_a_program_that_fails_is_told_with_its_last_line(tmp_path):
    log = str(tmp_path / 'log.txt')
    with pytest.raises(SwiftError, match='failed: ValueError: no such task; see'):
        eval_backends._run([sys.executable, '-c', 'raise ValueError("no such task")'], log, None)


TASK = """
task: sums
dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 16
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""


@pytest.mark.slow
def test_a_local_task_of_the_harness_through_our_server(tmp_path, monkeypatch):
    """lm-evaluation-harness in its own environment, without a network, asks `swift deploy`; its figure is that of swift eval."""
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('HF_DATASETS_OFFLINE', '1')
    monkeypatch.setenv('HF_HOME', str(tmp_path / 'hf'))
    rows = [json.loads(line) for line in open('examples/data/arithmetic_heldout.jsonl', encoding='utf-8')][:40]
    data = write_rows(tmp_path / 'sums.jsonl', [{'question': row['messages'][0]['content'], 'answer': row['solution']} for row in rows])
    tasks = tmp_path / 'tasks'
    tasks.mkdir()
    (tasks / 'sums.yaml').write_text(TASK.format(rows=data), encoding='utf-8')
    shared = {'model': 'tiny', 'eval_output_dir': str(tmp_path / 'out'), 'max_new_tokens': 16}
    theirs = eval_main({**shared, 'eval_dataset': ['sums'], 'eval_backend': 'lm-eval', 'extra_eval_args': {'include_path': str(tasks)}})
    ours = eval_main({**shared, 'eval_dataset': [data], 'eval_metrics': ['exact']})
    part = theirs['datasets']['sums']
    assert part['asked'] == 40 and len(part['items']) == 40
    assert part['metrics']['exact_match']['mean'] == pytest.approx(ours['datasets']['sums']['metrics']['exact']['mean'])
    assert (tmp_path / 'out').exists() and 'exact_match' in open(theirs['report_dir'] + '/report.md', encoding='utf-8').read()
