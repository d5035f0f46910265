"""Which classes a classification gets: from flags, from a classifier that is trained further, from its rows."""

from types import SimpleNamespace

import pytest

from swift.arguments import Labels
from swift.core.errors import DatasetError, RowError, SwiftError
from swift.core.types import Conversation
from swift.dataset.load import Splits
from swift.pipelines.labels import label_facts

SINGLE, MULTI, REGRESSION = 'single_label_classification', 'multi_label_classification', 'regression'


class Rows(list):
    """Rows of which some can't be read."""

    def __getitem__(self, index):
        label = super().__getitem__(index)
        if label is RowError:
            raise RowError('broken')
        return Conversation([{'role': 'user', 'content': 'x'}], label=label)


def facts(labels, method='seq_cls', stored=None, **flags):
    args = SimpleNamespace(**{'num_labels': None, 'class_names': [], 'problem_type': None, **flags})
    kind = 'ForSequenceClassification' if method == 'seq_cls' else 'ForTokenClassification'
    info = SimpleNamespace(architectures=('Qwen3ForCausalLM',) if stored is None else ('Qwen3' + kind,), config=stored or {})
    train = labels if labels is None or not isinstance(labels, list) else Rows(labels)
    return label_facts(method, args, info, SimpleNamespace(train=train))


@pytest.mark.parametrize(('labels', 'flags', 'wanted'), [
    (['b', 'a', 'c', 'a'], {}, Labels(3, ('a', 'b', 'c'), SINGLE)),
    ([1, 0, 2, RowError, None], {}, Labels(3, (), SINGLE)),
    ([True, False], {}, Labels(2, (), SINGLE)),
    (['0', '2'], {}, Labels(3, (), SINGLE)),
    ([-1, 1], {}, Labels(2, ('-1', '1'), SINGLE)),
    ([1.0, 0.0], {}, Labels(2, (), SINGLE)),
    ([0.5, 1], {}, Labels(1, (), REGRESSION)),
    ([[0.5, 1.0], [2.0, 3.0]], {}, Labels(2, (), REGRESSION)),
    ([['x', 'y'], ['z'], []], {}, Labels(3, ('x', 'y', 'z'), MULTI)),
    ([[0], [3, 1]], {}, Labels(4, (), MULTI)),
    ([0, 1], dict(problem_type=MULTI), Labels(2, (), MULTI)),
    ([1, 2, 5], dict(problem_type=REGRESSION), Labels(1, (), REGRESSION)),
    ([0, 1], dict(num_labels=4), Labels(4, (), SINGLE)),
    ([0, 1], dict(num_labels=1), Labels(1, (), REGRESSION)),
    (['b', 'a'], dict(class_names=['b', 'a']), Labels(2, ('b', 'a'), SINGLE)),
    ([['b'], ['a']], dict(class_names=['b', 'a']), Labels(2, ('b', 'a'), MULTI)),
])  # fmt: skip
def test_texts(labels, flags, wanted):
    assert facts(labels, **flags) == wanted


@pytest.mark.parametrize(('labels', 'flags', 'wanted'), [
    ([['O', 'PER'], ['LOC', 'O']], {}, Labels(3, ('O', 'LOC', 'PER'))),
    ([[0, 1], [3]], {}, Labels(4, ())),
    ([[0, 1], 'no list'], dict(class_names=['O', 'PER']), Labels(2, ('O', 'PER'))),
])  # fmt: skip
def test_words(labels, flags, wanted):
    assert facts(labels, 'token_cls', **flags) == wanted


def test_a_classifier_keeps_its_classes():
    stored = {'id2label': {'0': 'z', '1': 'a'}, 'problem_type': MULTI}
    assert facts([['a'], ['b']], stored=stored) == Labels(2, ('z', 'a'), MULTI)
    assert facts([['a']], 'token_cls', stored={'id2label': {'0': 'LABEL_0', '1': 'LABEL_1'}}) == Labels(2, ())
    assert facts([0, 1], stored={'num_labels': 3}) == Labels(3, (), SINGLE)


def test_what_can_not_be_found_is_asked_for():
    stream = SimpleNamespace()
    with pytest.raises(SwiftError, match='--streaming true rows are not looked at .* give --num_labels N'):
        facts(stream)
    assert facts(stream, num_labels=3, problem_type=SINGLE) == Labels(3, (), SINGLE)
    assert facts(stream, 'token_cls', class_names=['O', 'X']) == Labels(2, ('O', 'X'))
    with pytest.raises(DatasetError, match='no row has a label; name the column'):
        facts([None, None])
    with pytest.raises(SwiftError, match="every row has the class 'a'"):
        facts(['a', 'a'])
    with pytest.raises(SwiftError, match=r'--num_labels 3: the rows name their classes \(a, b'):
        facts(['a', 'b'], num_labels=3)
    with pytest.raises(DatasetError, match='no training data'):
        facts(None)


def test_other_methods_have_no_classes():
    assert facts(['a'], 'sft') is None and facts(['a'], 'rm') is None and Splits
