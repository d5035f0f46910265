"""The engine for models that answer with numbers, without a model: batches, order, errors, and what the numbers mean."""

import numpy as np
import pytest

from swift.core.errors import RowError, SwiftError
from swift.core.types import Conversation, Sample
from swift.infer_engine.scoring import Classes, Ranking, Reward, ScoringEngine, Vectors, Words, sigmoid, softmax


def talk(text, **more):
    return Conversation([{'role': 'user', 'content': text}], **more)


def encode(talks):
    return [RowError('empty', 'here') if not t.messages[0]['content'] else Sample([1] * len(t.messages[0]['content']), []) for t in talks]


class Forward:
    def __init__(self):
        self.batches = []

    def __call__(self, samples):
        self.batches.append([len(sample) for sample in samples])
        return [np.array([[len(sample), 0.0]]) for sample in samples]


def test_order_batches_and_errors():
    forward = Forward()
    engine = ScoringEngine(encode, forward, Classes(problem_type='regression'), max_batch_size=2, max_batch_tokens=8)
    texts = ['a' * size for size in (3, 1, 0, 9, 4, 2)]
    found = engine.infer([talk(text) for text in texts])
    assert [r if isinstance(r, RowError) else r['response'][0] for r in found if not isinstance(r, RowError)] == [3, 1, 9, 4, 2]
    assert isinstance(found[2], RowError)
    assert forward.batches == [[9], [4, 3], [2, 1]]


def test_any_number_of_rows_goes_through_a_window():
    forward = Forward()
    engine = ScoringEngine(encode, forward, Classes(problem_type='regression'), max_batch_size=1)
    asked = (SwiftError('bad') if number == 5 else talk('a' * (number % 3 + 1)) for number in range(20))
    found = list(engine.infer_each(asked))
    assert [item['response'][0] if isinstance(item, dict) else str(item) for item in found] == [
        'bad' if number == 5 else number % 3 + 1 for number in range(20)
    ]
    assert max(map(len, forward.batches)) == 1


def test_a_number_that_is_none_is_an_error_of_its_row():
    engine = ScoringEngine(encode, lambda samples: [np.array([[np.nan, 0.0]]) for _ in samples], Classes())
    [found] = engine.infer([talk('a', source='d.jsonl:1')])
    assert isinstance(found, RowError) and str(found).startswith('d.jsonl:1: the model gives no finite number')


def test_what_classes_mean():
    row, sample = np.log(np.array([[1.0, 2.0, 1.0]])), Sample([1], [])
    one = Classes(['x', 'y', 'z'])(talk('a'), sample, row)
    assert one == {'response': 'y', 'probabilities': {'x': 0.25, 'y': 0.5, 'z': 0.25}}
    assert Classes()(talk('a'), sample, row)['response'] == 1
    several = Classes(['x', 'y', 'z'], 'multi_label_classification')(talk('a'), sample, row)
    assert several['response'] == ['y'] and several['probabilities']['y'] == pytest.approx(2 / 3, abs=1e-6)
    assert Classes(problem_type='regression')(talk('a'), sample, np.array([[0.5]])) == {'response': 0.5}


def test_what_words_mean():
    values = np.array([[2.0, 0.0], [0.0, 1.0]])
    found = Words(['O', 'B'])(talk('one two three'), Sample([1], [], extra={'first': 1, 'own': [True, False]}), values)
    assert found['response'] == [None, 'O', None]
    assert found['words'][1] == {'word': 'two', 'label': 'O', 'probability': pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)}
    assert Words()(talk('one two'), Sample([1], []), values)['response'] == [0, 1]


def test_what_rewards_vectors_and_rankings_mean():
    sample = Sample([1], [])
    assert Reward()(talk('a'), sample, np.array([[1.5]])) == {'response': 1.5}
    assert Reward()(talk('a'), sample, np.array([[1.5], [0.5], [1.0]])) == {'response': 1.5, 'rejected_scores': [0.5, 1.0], 'margin': 0.5}
    vectors = np.array([[3.0, 4.0, 12.0], [3.0, 4.0, -12.0], [0.0, 0.0, 0.0]])
    found = Vectors()(talk('a'), sample, vectors)
    assert found['similarities'] == [pytest.approx((25 - 144) / 169, abs=1e-6), 0.0]
    assert np.linalg.norm(found['response']) == pytest.approx(1, abs=1e-7)
    assert Vectors(2)(talk('a'), sample, vectors)['similarities'][0] == pytest.approx(1)
    ranked = Ranking()(talk('a'), sample, np.array([[90.0], [-1.0], [95.0], [-1.0]]))
    assert ranked['ranking'] == [2, 0, 1, 3] and ranked['response'][:1] == [1.0]


def test_shares_without_overflow():
    assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]
    assert softmax(np.array([1e4, 0.0])).tolist() == [1.0, 0.0]
    with pytest.raises(SwiftError, match='at least 1'):
        ScoringEngine(encode, Forward(), Classes(), max_batch_size=0)
