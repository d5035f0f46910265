"""`swift eval`: what is asked, how it is judged, what is written, and that a stopped evaluation goes on."""

import json
import math

import pytest

from swift import eval_main
from swift.core.errors import ArgumentsError, DatasetError, SwiftError
from swift.pipelines.eval_judge import figures_of, interval
from swift.pipelines.eval_kinds import choices_of, chosen_letter, kind_of, right_choice
from tests.helpers.fake_openai import fake_server
from tests.pipelines.conftest import write_rows

SUMS = [{'question': f'What is {a} plus {b}?', 'answer': str(a + b)} for a, b in ((1, 2), (3, 4), (5, 5), (6, 2), (9, 9), (2, 2))]
CHOICES = [
    {'question': 'What is 3 plus 4?', 'choices': ['12', '7', '9', '40'], 'answer': '7'},
    {'question': 'What is 2 plus 2?', 'A': '5', 'B': '8', 'C': '4', 'answer': 'C'},
    {'question': 'What is 5 plus 1?', 'choices': {'text': ['6', '2'], 'label': ['1', '2']}, 'answerKey': '1'},
    {'question': 'What is 8 plus 1?', 'options': ['A. 3', 'B. 9'], 'answer': 1},
]


@pytest.fixture
def sums(tmp_path):
    return write_rows(tmp_path / 'sums.jsonl', SUMS)


@pytest.fixture
def run(tmp_path):
    """`run(flag=…)` → report, of an evaluation into a folder of the test."""
    short = {'max_new_tokens': 8}
    return lambda **flags: eval_main({'eval_output_dir': str(tmp_path / 'out'), **({} if 'eval_mode' in flags else short), **flags})


def answers_of(report, name):
    return [item['response'] for item in report['datasets'][name]['items']]


# ---- kinds and letters


def test_kinds_by_the_rows():
    assert [kind_of(row) for row in CHOICES] == ['choice'] * 4
    assert kind_of(SUMS[0]) == 'qa' and kind_of({'question': 'q', 'answer': 'a\n#### 3'}) == 'math'


def test_every_shape_of_choices():
    assert [right_choice(row, choices_of(row)) for row in CHOICES] == [1, 2, 0, 1]
    assert choices_of(CHOICES[3]) == ['3', '9'], 'letters that are written in the choices are not written twice'
    with pytest.raises(SwiftError, match="answer 'E' is none of the 3 choices"):
        right_choice({'answer': 'E'}, ['a', 'b', 'c'])
    with pytest.raises(SwiftError, match='choices must be a list'):
        choices_of({'choices': 'abc'})


@pytest.mark.parametrize(
    ('said', 'letter'),
    [
        ('B', 'B'), ('b.', 'B'), ('(C) because', 'C'), ('The answer is B, not A', 'B'), ('答案是 D。', 'D'), ('A cat is on B', 'B'), ('\\boxed{C}', 'C'),
        ('<think>A or B</think>C', 'C'), ('I think so', None), ('A, B or C', 'A'), ('a dog, it seems', 'D'), ('It must be a dog', 'D'), ('', None),
        ('Answer: **B**', 'B'), ('B) blue', 'B'), ('选 C', 'C'), ('E', None), ('no idea', None),
    ],
)  # fmt: skip
def test_letters(said, letter):
    if said == 'A cat is on B':  # an article is no letter
        assert chosen_letter(said, ['x', 'y', 'z', 'w']) == 'B'
    elif said == 'a dog, it seems':
        assert chosen_letter('a dog', ['cat', 'cow', 'hen', 'dog']) == letter
    else:
        assert chosen_letter(said, ['cat', 'cow', 'hen', 'dog']) == letter


# ---- figures


def test_intervals():
    low, high = interval([1.0] * 69 + [0.0] * 31)
    assert (round(low, 4), round(high, 4)) == (0.5937, 0.7722)  # Wilson's, by hand: (p + z²/2n ± z√(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    assert interval([1.0])[0] == pytest.approx(0.2065, abs=1e-3) and interval([1.0])[1] == 1.0
    low, high = interval([0.2, 0.4, 0.6])
    assert (low + high) / 2 == pytest.approx(0.4) and high - low == pytest.approx(2 * 1.959964 * 0.2 / math.sqrt(3))
    assert figures_of({'a': [None, 1.0, 0.0]})['a']['count'] == 2


# ---- whole evaluations


def test_the_built_in_model_on_sums_it_never_saw(run):
    """The share that recipes/tiny_chat/evaluate.py finds: 62 %, 60 % and 84 % of the three tasks."""
    report = run(model='tiny', eval_dataset=['examples/data/arithmetic_heldout.jsonl'], max_new_tokens=32)
    part = report['datasets']['arithmetic_heldout']
    assert part['metrics']['exact']['mean'] == 0.69 and part['metrics']['exact']['count'] == 200 and part['failed'] == 0
    assert {name: round(figures['exact']['mean'], 2) for name, figures in part['groups'].items()} == {'mul': 0.62, 'sub_big': 0.60, 'add_big': 0.84}
    assert report['timings']['rows'] == 200 and report['timings']['tokens'] > 200


def test_limit_report_and_table(run, sums, capsys):
    report = run(model='tiny', eval_dataset=[sums], eval_limit=3)
    part = report['datasets']['sums']
    assert part['asked'] == 3 and part['rows'] == 6 and len(part['items']) == 3
    assert part['metrics']['accuracy'] == {'mean': 1.0, 'count': 3, **dict(zip(('low', 'high'), interval([1.0] * 3), strict=True))}
    with open(report['report_dir'] + '/report.json', encoding='utf-8') as file:
        written = json.load(file)
    assert written['datasets']['sums']['items'][0]['response'] == '3' and written['settings']['generation']['temperature'] == 0
    page = open(report['report_dir'] + '/report.md', encoding='utf-8').read()
    assert '| sums | qa | accuracy | 1.0000 |' in page and '| 0 | What is 1 plus 2? | 3 | 3 | 1 | 1 |' in page
    shown = capsys.readouterr().out
    assert 'sums' in shown and '1.0000' in shown and '95 % interval' in shown


def test_math_rows(run, tmp_path):
    rows = [{'question': 'What is 3 plus 4?', 'answer': '3+4 = <<3+4=7>>7\n#### 7'}, {'question': 'What is 5 plus 4?', 'answer': 'so\n#### 1,000'}]
    part = run(model='tiny', eval_dataset=[write_rows(tmp_path / 'g.jsonl', rows)])['datasets']['g']
    assert part['kind'] == 'math' and [item['scores']['accuracy'] for item in part['items']] == [1.0, 0.0]


def test_choices_by_likelihood(run, tmp_path):
    path = write_rows(tmp_path / 'choices.jsonl', CHOICES)
    part = run(model='tiny', eval_dataset=[path], eval_mode='likelihood', num_shots=1)['datasets']['choices']
    assert part['metrics']['accuracy']['mean'] == 1.0 and part['metrics']['accuracy_norm']['count'] == 4
    assert part['items'][0]['messages'][:2] == [{'role': 'user', 'content': 'What is 2 plus 2?'}, {'role': 'assistant', 'content': '4', 'loss': False}]
    for item in part['items']:
        best = max(range(len(item['logps'])), key=item['logps'].__getitem__)
        assert item['response'] == 'ABCD'[best] and all(value < 0 for value in item['logps'])


def test_the_likelihood_of_a_choice_is_that_of_its_tokens(run, tmp_path):
    """Against transformers alone: log-softmax at the tokens of the answer and the end of its turn."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from swift.model.resolve import resolve_model_dir

    part = run(model='tiny', eval_dataset=[write_rows(tmp_path / 'c.jsonl', CHOICES[:1])], eval_mode='likelihood')['datasets']['c']
    folder = resolve_model_dir('tiny').model_dir
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    question = [{'role': 'user', 'content': CHOICES[0]['question']}]
    head = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    for choice, found in zip(CHOICES[0]['choices'], part['items'][0]['logps'], strict=True):
        whole = tokenizer.apply_chat_template([*question, {'role': 'assistant', 'content': choice}], tokenize=False).rstrip('\n')
        start, ids = len(tokenizer(head)['input_ids']), tokenizer(whole, return_tensors='pt')['input_ids']
        with torch.no_grad():
            logps = model(ids).logits[0].log_softmax(-1)
        assert found == pytest.approx(sum(float(logps[place - 1, ids[0, place]]) for place in range(start, ids.shape[1])), abs=1e-3)


def test_choices_by_letter_through_a_server(run, tmp_path):
    """The server repeats the question, which ends with the prompt's last line; its own letters decide nothing here."""
    path = write_rows(tmp_path / 'c.jsonl', CHOICES[:2])
    with fake_server('m') as server:
        report = run(eval_url=f'{server.url}/v1', eval_dataset=[path], system='be brief')
    asked = sorted(body['messages'][-1]['content'] for body in server.bodies)
    assert asked[1] == 'What is 3 plus 4?\n\nA. 12\nB. 7\nC. 9\nD. 40\n\nAnswer with the letter of the right choice only.'
    assert all(body['messages'][0] == {'role': 'system', 'content': 'be brief'} and body['model'] == 'm' and body['temperature'] == 0 for body in server.bodies)
    assert report['model'].startswith('http') and report['datasets']['c']['kind'] == 'choice'


def test_rouge_and_plugin_metrics(run, tmp_path):
    plugin = tmp_path / 'eval_plugin.py'
    plugin.write_text(
        'from swift.plugin import eval_metrics_map, orms\n'
        "eval_metrics_map['mean_length'] = lambda said, right: {'mean_length': sum(map(len, said)) / len(said)}\n"
        "orms['has_digit'] = lambda completions, **columns: [float(any(map(str.isdigit, said))) for said in completions]\n",
        encoding='utf-8',
    )
    path = write_rows(tmp_path / 's.jsonl', SUMS[:2])
    report = run(model='tiny', eval_dataset=[f'generation:{path}'], eval_metrics=['rouge', 'bleu', 'mean_length', 'has_digit'], external_plugins=[str(plugin)])
    metrics = report['datasets']['s']['metrics']
    assert metrics['rouge-l']['mean'] == 1.0 and metrics['bleu-4']['mean'] == 1.0 and metrics['has_digit']['mean'] == 1.0
    assert metrics['mean_length'] == {'mean': 1.0, 'count': 2}


# ---- examples before the question


def test_examples_are_never_the_question_itself(run, sums):
    report = run(model='tiny', eval_dataset=[sums], num_shots=2)
    for item in report['datasets']['sums']['items']:
        messages = item['messages']
        assert [message['role'] for message in messages] == ['user', 'assistant'] * 2 + ['user']
        questions = [message['content'] for message in messages if message['role'] == 'user']
        assert len(set(questions)) == 3
    assert [m['content'] for m in report['datasets']['sums']['items'][0]['messages']][:4] == ['What is 3 plus 4?', '7', 'What is 5 plus 5?', '10']
    assert [m['content'] for m in report['datasets']['sums']['items'][5]['messages']][:2] == ['What is 1 plus 2?', '3']


def test_examples_of_a_file(run, sums, tmp_path):
    dev = write_rows(tmp_path / 'dev.jsonl', [SUMS[0], {'question': 'What is 7 plus 7?', 'answer': '14'}])
    items = run(model='tiny', eval_dataset=[sums], num_shots=1, shots_dataset=dev, eval_limit=2)['datasets']['sums']['items']
    assert items[0]['messages'][0]['content'] == 'What is 7 plus 7?', 'the question stands in the file of examples too'
    assert items[1]['messages'][0]['content'] == 'What is 1 plus 2?'
    with pytest.raises(SwiftError, match='2 examples are wanted and there are 1 besides the question'):
        run(model='tiny', eval_dataset=[sums], num_shots=2, shots_dataset=dev)


def test_settings_of_single_sets(run, sums, tmp_path):
    other = write_rows(tmp_path / 'other.jsonl', SUMS)
    own = {'other': {'limit': 1, 'num_shots': 1, 'metrics': ['exact'], 'system': 'count', 'prompt': 'Q: {question}'}}
    parts = run(model='tiny', eval_dataset=[sums, other], eval_limit=2, eval_dataset_args=own)['datasets']
    assert parts['sums']['asked'] == 2 and parts['other']['asked'] == 1 and list(parts['other']['metrics']) == ['exact']
    assert [message['content'] for message in parts['other']['items'][0]['messages']] == ['count', 'Q: What is 3 plus 4?', '7', 'Q: What is 1 plus 2?']
    for wrong, part in (({'other': {'limt': 1}}, "no setting 'limt'; did you mean 'limit'"), ({'nothing': {}}, 'none of the data sets')):
        with pytest.raises(SwiftError, match=part):
            run(model='tiny', eval_dataset=[sums, other], eval_dataset_args=wrong)


# ---- stopped and continued


def test_a_stopped_evaluation_goes_on(run, sums, monkeypatch):
    from swift.pipelines import eval as pipeline

    write = pipeline.Ledger.add

    def stop(self, key, row):
        if len(self.done) == 3:
            raise KeyboardInterrupt
        write(self, key, row)

    monkeypatch.setattr(pipeline.Ledger, 'add', stop)
    flags = {'model': 'tiny', 'eval_dataset': [sums], 'temperature': 0.8}
    with pytest.raises(KeyboardInterrupt):
        run(**flags)
    monkeypatch.setattr(pipeline.Ledger, 'add', write)
    second = run(**flags)
    assert second['timings']['rows'] == 3 and second['timings']['kept_from_before'] == 3
    third = run(**flags)
    assert third['report_dir'] == second['report_dir'] + '-2' and third['timings']['rows'] == 6, 'a complete one is begun anew'
    assert answers_of(third, 'sums') == answers_of(second, 'sums'), 'and says the same, stopped or not'


def test_half_a_line_at_the_end_is_answered_again(run, sums):
    import os

    first = run(model='tiny', eval_dataset=[sums])
    folder = first['report_dir']
    os.unlink(folder + '/report.json')
    with open(folder + '/answers.jsonl', 'rb+') as file:
        file.truncate(os.path.getsize(folder + '/answers.jsonl') - 9)
    second = run(model='tiny', eval_dataset=[sums])
    assert second['report_dir'] == folder and second['timings']['rows'] == 1 and answers_of(second, 'sums') == answers_of(first, 'sums')


# ---- mistakes


def test_bad_rows_count_as_wrong(run, tmp_path):
    path = tmp_path / 'bad.jsonl'
    path.write_text('{"question": "What is 1 plus 2?", "answer": "3"}\n{"broken\n', encoding='utf-8')
    part = run(model='tiny', eval_dataset=[str(path)])['datasets']['bad']
    assert part['metrics']['exact']['mean'] == 0.5 and part['failed'] == 1 and 'bad.jsonl:2: not valid JSON' in part['items'][1]['error']
    with pytest.raises(SwiftError, match='bad.jsonl:2'):
        run(model='tiny', eval_dataset=[str(path)], strict=True)


def test_rows_without_an_answer_are_not_judged(run, tmp_path):
    path = write_rows(tmp_path / 'u.jsonl', [SUMS[0], {'question': 'What is 2 plus 2?'}])
    part = run(model='tiny', eval_dataset=[path])['datasets']['u']
    assert part['metrics']['exact']['count'] == 1 and part['unjudged'] == 1 and part['items'][1]['scores'] == {}


@pytest.mark.parametrize(
    ('entry', 'part'),
    [
        ('mmlu', 'mmlu is not on this machine.*--eval_dataset mmlu:path/to/mmlu.jsonl'),
        ('mmul', "no such file; did you mean 'mmlu'"),
        ('choise:SUMS', "'choise' is no kind of evaluation; did you mean 'choice'"),
        ('humaneval:SUMS', 'runs code or checkers that swift eval does not have'),
        ('qa:nowhere.jsonl', 'no such file: nowhere.jsonl'),
    ],
)
def test_entries_that_cannot_be_read(run, sums, entry, part):
    with pytest.raises(DatasetError, match=part):
        run(model='tiny', eval_dataset=[entry.replace('SUMS', sums)])


def test_flags_that_cannot_be(run, sums):
    for flags, part in (
        ({'eval_generation_config': {'max_token': 3}}, "no field 'max_token'; did you mean 'max_tokens'"),
        ({'eval_metrics': ['acuracy']}, "unknown metric 'acuracy'; did you mean 'accuracy'"),
        ({'eval_mode': 'likelihood'}, 'sums has none'),
        ({'eval_dataset': []}, '--eval_dataset is required'),
        ({'eval_mode': 'likelihood', 'eval_url': 'http://h/v1'}, 'needs the model itself'),
        ({'api_key': 'k'}, '--api_key has no effect without --eval_url'),
        ({'shots_dataset': sums}, '--shots_dataset has no effect without --num_shots'),
        ({'eval_limit': 0}, '--eval_limit must be above 0'),
    ):
        with pytest.raises((SwiftError, ArgumentsError), match=part):
            run(**{'model': 'tiny', 'eval_dataset': [sums], **flags})


def test_generation_settings_reach_the_engine(run, sums):
    report = run(model='tiny', eval_dataset=[sums], eval_limit=1, eval_generation_config={'max_tokens': 1, 'do_sample': False}, eval_metrics=['exact'])
    assert report['datasets']['sums']['cut'] == 1 and report['settings']['generation']['max_tokens'] == 1


def test_a_model_that_gives_numbers_is_refused(run, sums, tmp_path):
    from tests.helpers.tiny import save_tiny

    folder = save_tiny(tmp_path / 'm')
    with open(folder + '/config.json', encoding='utf-8') as file:
        config = json.load(file)
    config['architectures'] = ['Qwen3ForSequenceClassification']
    with open(folder + '/config.json', 'w', encoding='utf-8') as file:
        json.dump(config, file)
    with pytest.raises(SwiftError, match='answers with numbers .seq_cls.; swift infer'):
        run(model=folder, eval_dataset=[sums])
