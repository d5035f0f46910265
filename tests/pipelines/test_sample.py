"""`swift sample`: what is drawn, judged, kept and written; that a stopped sampling goes on, and what it writes trains."""

import json
import os

import pytest

from swift import sample_main
from swift.core.errors import ArgumentsError, DatasetError, SwiftError
from swift.pipelines.sample_judge import Asked, Candidate, distinct, majority
from tests.helpers.fake_openai import fake_server
from tests.pipelines.conftest import write_rows

HELD_OUT = 'examples/data/arithmetic_heldout.jsonl'


@pytest.fixture
def sample(tmp_path):
    """`sample(flag=…)` → (report, rows written)."""

    def run(**flags):
        report = sample_main({'output_dir': str(tmp_path / 'out'), 'output_file': 'rows.jsonl', **flags})
        with open(report['output_file'], encoding='utf-8') as file:
            return report, [json.loads(line) for line in file]

    return run


@pytest.fixture
def cached(tmp_path):
    """Two prompts with answers drawn before."""
    return write_rows(tmp_path / 'drawn.jsonl', [
        {'messages': [{'role': 'user', 'content': '3 + 4 = ?'}], 'solution': '7', 'choices': ['7', '8', '7', '2+5 = 7\nso \\boxed{7}', '9', '']},
        {'messages': [{'role': 'user', 'content': '1 + 1 = ?'}], 'solution': '2', 'choices': ['2', '2', '2']},
    ])  # fmt: skip


def texts(rows):
    return [row['messages'][-1]['content'] for row in rows]


# ---- judging answers that are there already


def test_the_best_are_kept_and_the_worst_stands_beside(sample, cached):
    report, rows = sample(cache_files=[cached], sampler_engine='no', orm_model='accuracy', model='tiny')
    assert texts(rows) == ['7', '2+5 = 7\nso \\boxed{7}', '2'], 'by votes where scores are equal'
    assert [row.get('rejected_response') for row in rows] == ['9', '9', None]
    assert [row['votes'] for row in rows] == [2, 1, 3] and all(row['orm'] == 1.0 for row in rows)
    assert rows[0]['solution'] == '7' and 'choices' not in rows[0]
    assert report['prompts'] == 2 and report['answers'] == 9 and report['distinct'] == 5 and report['right'] == pytest.approx((3 / 6 + 1) / 2), 'one says nothing'


def test_limits_of_what_is_kept(sample, cached):
    shared = {'cache_files': [cached], 'sampler_engine': 'no', 'model': 'tiny', 'override_exist_file': True}
    assert texts(sample(**shared, orm_model='accuracy', n_best_to_keep=1)[1]) == ['7', '2']
    report, rows = sample(**shared, orm_model='accuracy', easy_query_threshold=0.9)
    assert texts(rows) == ['7', '2+5 = 7\nso \\boxed{7}'] and report['easy'] == 1
    assert texts(sample(**shared, orm_model='regex:boxed')[1]) == ['2+5 = 7\nso \\boxed{7}']
    assert texts(sample(**shared)[1]) == ['7', '8', '2+5 = 7\nso \\boxed{7}', '9', '2'], 'nobody judges: all that differ'
    assert sample(**shared, orm_model='exact', orm_threshold=1.0)[0]['rows'] == 0


def test_the_way_counts_too(sample, tmp_path):
    rows = [{'messages': [{'role': 'user', 'content': 'q'}], 'solution': '7', 'choices': ['3+4 = 8\n7', '3+4 = 7\n7', '7']}]
    flags = {'cache_files': [write_rows(tmp_path / 'w.jsonl', rows)], 'sampler_engine': 'no', 'model': 'tiny', 'orm_model': 'accuracy'}
    _, rows = sample(**flags, prm_model='equations', prm_threshold=0.5)
    assert texts(rows) == ['3+4 = 7\n7', '7'] and {row['rejected_response'] for row in rows} == {'3+4 = 8\n7'} and rows[0]['prm'] == 1.0


def test_the_majority_is_kept(sample, tmp_path):
    rows = [{'messages': [{'role': 'user', 'content': 'q'}], 'choices': ['8', '1/2', '0.5', 'so \\boxed{\\frac12}', '8', '3']}]
    _, rows = sample(cache_files=[write_rows(tmp_path / 'm.jsonl', rows)], sampler_engine='no', model='tiny', sample_select='majority')
    assert texts(rows) == ['1/2', '0.5', 'so \\boxed{\\frac12}'] and rows[0]['rejected_response'] == '3'
    assert majority([Candidate({'content': text}, votes) for text, votes in (('1', 2), ('2', 2), ('1.0', 1))]) == {0, 2}
    assert majority([]) == set()


def test_equal_answers_are_one_with_votes():
    found = distinct([({'content': text}, 'stop') for text in ('a', 'b', 'a', ' ')])
    assert [(each.text, each.votes) for each in found] == [('a', 2), ('b', 1)]
    thought = distinct([({'content': 'a', 'reasoning_content': 'hm'}, 'stop')])[0]
    assert thought.whole == '<think>hm</think>\na'


def test_a_reward_model_judges(sample, cached, tmp_path, tiny_dir):
    from swift import rlhf_main

    pairs = [{'query': f'{n} + 1 = ?', 'response': 'good ' * 3, 'rejected_response': 'bad ' * 3} for n in range(8)]
    trained = rlhf_main(dict(rlhf_type='rm', model=tiny_dir, dataset=write_rows(tmp_path / 'p.jsonl', pairs), output_dir=str(tmp_path / 'rm'), max_steps=30,
                             per_device_train_batch_size=8, learning_rate=1e-2, report_to='none', save_steps=30))  # fmt: skip
    drawn = [{'messages': [{'role': 'user', 'content': '3 + 1 = ?'}], 'choices': ['bad bad bad', 'good good good', 'bad good bad']}]
    _, rows = sample(cache_files=[write_rows(tmp_path / 'd.jsonl', drawn)], sampler_engine='no', model='tiny', orm_model=trained['run_dir'], n_best_to_keep=1)
    assert texts(rows) == ['good good good'] and rows[0]['rejected_response'] == 'bad bad bad'
    with pytest.raises(SwiftError, match='is no reward model'):
        sample(cache_files=[cached], sampler_engine='no', model='tiny', orm_model=tiny_dir, override_exist_file=True)


# ---- drawing


def test_best_of_eight_on_sums_it_never_saw(sample):
    """More prompts than greedy answers (64 % of these 50) have a right one among eight."""
    report, rows = sample(model='tiny', dataset=[f'{HELD_OUT}#50'], num_return_sequences=8, orm_model='exact', n_best_to_keep=1, max_new_tokens=16)
    assert report['prompts'] == 50 and report['answers'] == 400
    assert report['solved'] >= 0.72 and report['solved'] == len(rows) / 50 and report['right'] < report['solved']
    assert all(row['messages'][-1] == {'role': 'assistant', 'content': row['solution']} for row in rows)


def test_equal_seeds_draw_equal_answers_in_any_batches(sample):
    flags = dict(model='tiny', dataset=[f'{HELD_OUT}#6'], num_return_sequences=4, max_new_tokens=8, override_exist_file=True)
    _, one = sample(**flags)
    assert sample(**flags, num_sampling_batch_size=1)[1] == one
    assert sample(**flags, seed=7)[1] != one
    parts = [sample(**flags, data_range=[part, 3])[1] for part in range(3)]
    assert [row for part in parts for row in part] == one, 'machines that share the data draw what one draws'
    assert len({row['messages'][0]['content'] for row in sample(**flags, num_sampling_batch_size=2, num_sampling_batches=1)[1]}) == 2


def test_a_stopped_sampling_goes_on(sample, monkeypatch, tmp_path):
    from swift.pipelines import sample as pipeline

    flags = dict(model='tiny', dataset=[f'{HELD_OUT}#6'], num_return_sequences=4, max_new_tokens=8, num_sampling_batch_size=2)
    whole = sample(**flags, output_file='whole.jsonl')[1]
    write = pipeline.Ledger.add

    def stop(self, key, row):
        if len(self.done) == 3:
            raise KeyboardInterrupt
        write(self, key, row)

    monkeypatch.setattr(pipeline.Ledger, 'add', stop)
    with pytest.raises(KeyboardInterrupt):
        sample(**flags)
    monkeypatch.setattr(pipeline.Ledger, 'add', write)
    with pytest.raises(SwiftError, match='was begun and stopped; go on with --resume true'):
        sample(**flags)
    with pytest.raises(SwiftError, match='begun with other settings .temperature.'):
        sample(**flags, resume=True, temperature=0.5)
    report, rows = sample(**flags, resume=True)
    assert rows == whole and report['prompts'] == 6
    assert not os.path.exists(report['output_file'] + '.part')
    with pytest.raises(SwiftError, match='exists already'):
        sample(**flags)


def test_distillation_from_a_server(sample, tmp_path):
    path = write_rows(tmp_path / 'q.jsonl', [{'query': 'please think of 3', 'response': 'old'}, {'query': 'hello'}])
    with fake_server('teacher') as server:
        report, rows = sample(sampler_type='distill', engine_kwargs={'base_url': f'{server.url}/v1'}, dataset=[path], system='teach', model='teacher')
    assert report['answers'] == 2 and len(server.bodies) == 2
    assert all(body['model'] == 'teacher' and body['messages'][0] == {'role': 'system', 'content': 'teach'} for body in server.bodies)
    assert not any('old' in str(body['messages']) for body in server.bodies), 'the answer of the row is not shown'
    said = {row['messages'][0]['content']: row['messages'][-1] for row in rows}
    assert 'You said: hello' in said['hello']['content'] and said['please think of 3'].get('reasoning_content')


# ---- searching


def test_a_search_solves_what_greedy_answers_do_not(sample):
    """Digit by digit: among the first 16 prompts, more are solved than greedily, and every row ends with a right answer."""
    from swift import InferRequest, RequestConfig, TransformersEngine

    with open(HELD_OUT, encoding='utf-8') as file:
        held = [json.loads(next(file)) for _ in range(16)]
    engine = TransformersEngine('tiny')
    answers = engine.infer([InferRequest(messages=row['messages'][:1]) for row in held], RequestConfig(max_tokens=8, temperature=0))
    greedy = sum(answer.choices[0].message.content == row['solution'] for answer, row in zip(answers, held, strict=True))
    flags = dict(sampler_type='mcts', model='tiny', dataset=[f'{HELD_OUT}#16'], orm_model='exact', step_tokens=1, max_iterations=24, n_best_to_keep=1)
    report, rows = sample(**flags)
    assert len(rows) > greedy and all(row['messages'][-1]['content'] == row['solution'] for row in rows)
    assert sample(**flags, override_exist_file=True)[1] == rows, 'the same seed, the same search'


# ---- what is written trains


def test_rows_train_sft_and_dpo(sample, tmp_path):
    from swift import rlhf_main, sft_main

    drawn = dict(model='tiny', dataset=[f'{HELD_OUT}#16'], num_return_sequences=8, orm_model='exact', max_new_tokens=8, n_best_to_keep=1)
    report, rows = sample(**drawn)
    assert report['pairs'] == sum('rejected_response' in row for row in rows) < report['rows']
    shared = dict(model='tiny', dataset=report['output_file'], max_steps=2, report_to='none', logging_steps=1)
    assert sft_main({**shared, 'output_dir': str(tmp_path / 'sft')})['run_dir']
    pairs, rows = sample(**drawn, pairs_only=True, output_file='pairs.jsonl')
    assert pairs['pairs'] == pairs['rows'] == len(rows) == report['pairs'] > 0
    assert rlhf_main({**shared, 'dataset': pairs['output_file'], 'rlhf_type': 'dpo', 'output_dir': str(tmp_path / 'dpo')})['run_dir']


# ---- mistakes


def test_bad_rows_are_counted_and_too_many_stop(sample, tmp_path):
    good = [{'messages': [{'role': 'user', 'content': f'{n} + 1 = ?'}], 'choices': ['1']} for n in range(20)]
    path = write_rows(tmp_path / 'b.jsonl', [*good, {'messages': [{'role': 'user', 'content': 'no answers'}]}])
    flags = dict(cache_files=[path], sampler_engine='no', model='tiny', override_exist_file=True)
    assert sample(**flags)[0]['bad'] == 1
    with pytest.raises(SwiftError, match='b.jsonl:21: a row of --cache_files needs choices'):
        sample(**flags, strict=True)
    few = write_rows(tmp_path / 'few.jsonl', [good[0], {'messages': [{'role': 'user', 'content': 'x'}]}])
    with pytest.raises(DatasetError, match='1 of 2 rows are bad'):
        sample(**{**flags, 'cache_files': [few]})


def test_flags_that_cannot_be(sample, cached):
    for flags, part in (
        ({'orm_model': 'acuracy', 'dataset': [HELD_OUT]}, "unknown outcome reward 'acuracy'; did you mean 'accuracy'"),
        ({'sampler_type': 'distill', 'dataset': [HELD_OUT]}, 'client needs the address'),
        ({'sampler_type': 'mcts', 'dataset': [HELD_OUT]}, 'mcts needs --orm_model or --prm_model'),
        ({'sampler_engine': 'no', 'dataset': [HELD_OUT]}, 'no needs --cache_files'),
        ({'cache_files': [cached]}, 'they go with --sampler_engine no'),
        ({}, '--dataset is required'),
        ({'data_range': [3, 3], 'dataset': [HELD_OUT]}, 'two numbers i n'),
        ({'step_tokens': 3, 'dataset': [HELD_OUT]}, 'has no effect unless --sampler_type is mcts'),
        ({'resume': True, 'output_file': None, 'dataset': [HELD_OUT]}, 'goes on with a file'),
    ):
        with pytest.raises((SwiftError, ArgumentsError), match=part):
            sample(**{'model': 'tiny', **flags})


def test_judges_see_the_columns_of_the_rows():
    from swift.core.types import Conversation
    from swift.pipelines.sample_judge import FunctionJudge
    from swift.rewards import load_reward

    seen = {}

    def reward(completions, **columns):
        seen.update(columns)
        return [0.0] * len(completions)

    talk = Conversation([{'role': 'user', 'content': 'q'}], columns={'level': 3})
    asked = [Asked(0, talk, '7', [Candidate({'content': 'a'}), Candidate({'content': 'b'})])]
    assert FunctionJudge(load_reward(reward))(asked) == [[0.0, 0.0]]
    assert seen == {'level': [3, 3], 'solution': ['7', '7'], 'messages': [talk.messages] * 2}
