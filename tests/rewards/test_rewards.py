"""The registries, every shape of reward function, and the built-in rewards."""

import sys
import types

import pytest

from swift.core.errors import SwiftError
from swift.plugin import ORM, PRM, orms, prms
from swift.rewards import combined, load_reward


@pytest.fixture(autouse=True)
def kept_registries():
    before = dict(orms._entries), dict(prms._entries)
    yield
    orms._entries, prms._entries = before


def test_a_class_gets_all_columns_as_lists():
    class Mine(ORM):
        def __call__(self, completions, solution, **columns):
            assert columns['task'] == ['a', 'b']
            return [len(said) + len(right) for said, right in zip(completions, solution, strict=True)]

    orms['mine'] = Mine
    assert load_reward('mine')(['x', 'yy'], {'solution': ['1', '22'], 'task': ['a', 'b']}) == [2.0, 4.0]


def test_a_function_of_one_completion():
    """As the handbook's math_reward(completion, answer): half a point for steps, half for a number that is near."""

    def math_reward(completion, answer):
        return 0.5 * ('<step>' in completion) + 0.5 * (abs(float(completion.rsplit(' ')[-1]) - answer) < 1e-3)

    reward = load_reward(math_reward)
    assert reward(['<step> 4', '4', '5'], {'answer': [4, 4, 4]}) == [1.0, 0.5, 0.0]
    assert reward(['4.0'], {'solution': [4]}) == [0.5], 'a row that calls the right answer solution serves too'


def test_a_function_that_waits():
    async def slow(completions, **columns):
        return [1] * len(completions)

    async def slow_one(completion):
        return len(completion)

    assert load_reward(slow)(['a', 'b']) == [1.0, 1.0]
    assert load_reward(slow_one)(['a', 'bb']) == [1.0, 2.0]


def test_none_says_nothing_and_arrays_are_numbers():
    import numpy

    assert load_reward(lambda completions: [None, True])(['a', 'b']) == [None, 1.0]
    assert load_reward(lambda completions: numpy.array([0.25, 2]))(['a', 'b']) == [0.25, 2.0]


@pytest.mark.parametrize(
    ('given', 'part'),
    [([1.0], 'gave 1 values for 2 completions'), ([1, 2, 3], 'gave 3 values for 2'), (0.5, 'gave a float'), (['x', 1], "gave 'x' for completion 0"),
     ([1, float('nan')], 'gave nan for completion 1'), (None, 'gave a NoneType')],
)  # fmt: skip
def test_wrong_results_raise(given, part):
    with pytest.raises(SwiftError, match=part):
        load_reward(lambda completions: given)(['a', 'b'])


def test_missing_columns_and_uneven_columns_raise():
    with pytest.raises(SwiftError, match='needs the column solution.*their columns: task'):
        load_reward('exact')(['a'], {'task': ['t']})
    with pytest.raises(SwiftError, match='the column solution has 1 values for 2 completions'):
        load_reward('exact')(['a', 'b'], {'solution': ['a']})


def test_names():
    with pytest.raises(SwiftError, match="unknown outcome reward 'acuracy'; did you mean 'accuracy'"):
        load_reward('acuracy')
    with pytest.raises(SwiftError, match='length needs settings'):
        load_reward('length')
    with pytest.raises(SwiftError, match='exact takes no settings'):
        load_reward('exact:3')
    assert load_reward('accuracy')([], {}) == []


def test_steps_count_by_the_worst():
    class Steps(PRM):
        def __call__(self, completions, **columns):
            return [[0.9, 0.2, 0.7], [], 0.4]

    assert load_reward(Steps)(['a', 'b', 'c']) == [0.2, 0.0, 0.4]


def test_several_rewards_are_weighed():
    rewards = [load_reward('exact'), load_reward(lambda completions: [None, 2])]
    assert combined(rewards, ['a', 'b'], {'solution': ['a', 'a']}, [1.0, 0.25]) == [1.0, 0.5]
    with pytest.raises(SwiftError, match='1 weights for 2 rewards'):
        combined(rewards, ['a'], {'solution': ['a']}, [1.0])


def score(name, said, **columns):
    return load_reward(name)([said], {key: [value] for key, value in columns.items()})[0]


@pytest.mark.parametrize(
    ('said', 'solution', 'right'),
    [('765', '765', 1), ('The answer is 12 apples.', '12', 1), ('it has 12 items, no 13', '13', 1), ('13', '12', 0), ('so 48+24=72\n#### 72', 'x <<1=1>>\n#### 72', 1),
     ('\\boxed{0.5}', '\\frac12', 1), ('<think>it may be 4</think>5', '4', 0), ('Paris', 'paris.', 1), ('not 12', 'twelve', 0), ('<answer>B</answer>', 'B', 1)],
)  # fmt: skip
def test_accuracy(said, solution, right):
    assert score('accuracy', said, solution=solution) == right


def test_math_verify_is_asked_where_it_is_installed(monkeypatch):
    module = types.ModuleType('math_verify')
    module.__spec__ = types.SimpleNamespace()
    module.parse = lambda text, parsing_timeout=0: [text]
    module.verify = lambda gold, said, timeout_seconds=0: gold == ['forty-two'] and said == ['6*7, in words']
    monkeypatch.setitem(sys.modules, 'math_verify', module)
    assert score('accuracy', '6*7, in words', solution='forty-two') == 1
    assert score('accuracy', '6*8, in words', solution='forty-two') == 0


@pytest.mark.parametrize(
    ('name', 'said', 'value'),
    [
        ('format', '<think>a\nb</think>\nc', 1), ('format', '<think>a</think>', 0), ('format', 'c', 0), ('format', '<think>a</think>b<think>c</think>', 0),
        ('format', 'x <think>a</think> b', 0), ('format:answer', '<think>a</think><answer>b</answer>', 1), ('format:answer', '<think>a</think>b', 0),
        ('length:4', 'abcd', 1), ('length:4', 'abcdef', 0.5), ('length:4', 'a' * 9, 0), ('length:2-4', 'a', 0.5), ('regex:^\\d+$', '42', 1), ('regex:^\\d+$', 'x42', 0),
    ],
)  # fmt: skip
def test_rewards_of_form(name, said, value):
    assert score(name, said) == value


def test_bad_settings_of_rewards():
    for name, part in (('length:9-2', 'no range'), ('length:x', 'no range'), ('format:other', 'not known')):
        with pytest.raises(SwiftError, match=part):
            load_reward(name)
    with pytest.raises(SwiftError, match='is no pattern'):
        score('regex:(', 'a')
    with pytest.raises(SwiftError, match='has no pattern'):
        score('regex', 'a')
    assert score('regex', 'ab', pattern='b$') == 1


def test_equations_of_steps():
    reward = load_reward('equations', prms)
    said = ['48/2 = <<48/2=24>>24 clips\n48+24 = 73', 'It is 5.', '3*4=12 and 12+1=13', '2+2=5, 2+3=5', '(2+4)*3 = 18', 'x = 5', '10 × 2 = 20', '3 bags x 4/2 = 6', '60 x 60/100 = 36', '$40 x 5/100 = $3', '100% - 40% = 60%', '5 men - 2 = 3']
    assert reward(said) == [0.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0]


def test_the_plugin_file_of_the_handbook(tmp_path):
    from swift.core.plugins import load_plugin

    file = tmp_path / 'reward_plugin.py'
    file.write_text(
        'from swift.plugin import ORM, orms\n'
        'class R1V(ORM):\n'
        '    def __call__(self, completions, solution, **kwargs):\n'
        '        return [1.0 if c == s else 0.0 for c, s in zip(completions, solution)]\n'
        "orms['external_r1v_acc'] = R1V\n",
        encoding='utf-8',
    )
    load_plugin(str(file))
    assert load_reward('external_r1v_acc')(['a', 'b'], {'solution': ['a', 'a']}) == [1.0, 0.0]
