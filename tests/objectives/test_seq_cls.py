"""Classification of texts: labels of every form, what is read, losses against transformers' own, and how wrong rows are answered."""

from types import SimpleNamespace

import pytest
import torch
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from swift.core.errors import RowError, RowTooLong, SwiftError
from swift.core.types import IGNORE_INDEX, Actors, Conversation, Sample
from swift.objectives import get_objective
from swift.objectives.classes import Classes, ordered
from swift.objectives.custom import loss_map
from swift.template import get_template
from tests.helpers.tiny import save_encoder

SINGLE, MULTI, REGRESSION = 'single_label_classification', 'multi_label_classification', 'regression'


def make(problem=SINGLE, count=3, names=(), **more):
    return get_objective('seq_cls', SimpleNamespace(num_labels=count, class_names=list(names), problem_type=problem, **more))


def talk(label=None, said='hello world', **more):
    return Conversation([{'role': 'user', 'content': said}], label=label, source='rows.jsonl:7', **more)


@pytest.fixture(scope='module')
def template(tokenizer):
    return get_template(tokenizer)


@pytest.fixture(scope='module')
def encoder_template(tmp_path_factory):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(save_encoder(tmp_path_factory.mktemp('encoder') / 'model'))
    return lambda **settings: get_template(tokenizer, use_chat_template=False, **settings)


NAMES = ('bad', 'fair', 'good')


@pytest.mark.parametrize(('problem', 'names', 'label', 'wanted'), [
    (SINGLE, NAMES, 'fair', 1), (SINGLE, NAMES, 2, 2), (SINGLE, (), 2, 2), (SINGLE, (), '1', 1), (SINGLE, (), 1.0, 1), (SINGLE, (), True, 1),
    (SINGLE, ('1', '2', '3'), 1, 0), (SINGLE, ('-1', '0', '1'), -1, 0),
    (MULTI, NAMES, ['good', 'bad'], [0, 2]), (MULTI, NAMES, [1, 'fair'], [1]), (MULTI, NAMES, 'good', [2]), (MULTI, NAMES, [], []),
    (MULTI, (), [0, 2], [0, 2]), (MULTI, (), [0.0, 1.0, 1.0], [1, 2]),
    (REGRESSION, (), [1, '2.5', -3.0], [1.0, 2.5, -3.0]),
])  # fmt: skip
def test_a_class_may_be_named_by_its_name_or_its_number(template, problem, names, label, wanted):
    [[sample]] = make(problem, names=names).encode_batch([talk(label)], template)
    assert sample.label == wanted and sample.source == 'rows.jsonl:7' and set(sample.labels) == {IGNORE_INDEX}


@pytest.mark.parametrize(('problem', 'count', 'names', 'label', 'says'), [
    (SINGLE, 3, NAMES, 'god', "rows.jsonl:7: unknown class 'god'; did you mean 'good'"),
    (SINGLE, 3, NAMES, 'zzz', 'known: bad, fair, good'),
    (SINGLE, 3, (), 3, 'unknown class 3; known: 0 to 2'),
    (SINGLE, 3, (), -1, 'unknown class -1'),
    (SINGLE, 3, (), 0.5, 'unknown class 0.5'),
    (SINGLE, 3, NAMES, ['good'], 'unknown class'),
    (SINGLE, 3, NAMES, None, 'no label'),
    (MULTI, 3, NAMES, ['good', 'dull'], "unknown class 'dull'"),
    (REGRESSION, 1, (), 'much', "label 'much' is no number"),
    (REGRESSION, 1, (), float('nan'), 'not finite'),
    (REGRESSION, 2, (), [1.0], 'has 1 values, the model has 2'),
])  # fmt: skip
def test_a_label_that_can_not_be_is_answered_with_what_could(template, problem, count, names, label, says):
    [error] = make(problem, count, names).encode_batch([talk(label)], template)
    assert isinstance(error, RowError) and says in str(error)


def test_texts_are_read_as_inference_prompts(template, tokenizer):
    asked = talk('good')
    answered = Conversation([*asked.messages, {'role': 'assistant', 'content': 'fine'}], label='bad')
    [[first], [second]] = make(names=NAMES).encode_batch([asked, answered], template)
    assert first.input_ids == template.prompt(asked).input_ids
    assert tokenizer.decode(first.input_ids).endswith('<|im_start|>assistant\n')
    assert tokenizer.decode(second.input_ids).endswith('<|im_start|>assistant\nfine')


def test_without_chat_template_texts_stand_between_the_own_specials(encoder_template):
    template = encoder_template()
    for row in (talk(0), Conversation([{'role': 'assistant', 'content': 'hello world'}], label=0, text=True)):
        [[sample]] = make().encode_batch([row], template)
        assert sample.input_ids == template.tokenizer('hello world')['input_ids']
        assert template.tokenizer.decode(sample.input_ids) == '[CLS] hello world [SEP]'


def test_long_texts_are_cut_or_counted(encoder_template):
    said = 'the quick brown fox jumps over the lazy dog'
    whole = encoder_template().tokenizer(said)['input_ids']
    kept = {}
    for strategy in ('left', 'right'):
        [[sample]] = make().encode_batch([talk(0, said)], encoder_template(max_length=6, truncation_strategy=strategy))
        kept[strategy] = sample.input_ids
    assert kept['right'] == [*whole[:5], whole[-1]] and kept['left'] == [whole[0], *whole[-5:]]
    [error] = make().encode_batch([talk(0, said)], encoder_template(max_length=6))
    assert isinstance(error, RowTooLong)


def test_rows_without_text_are_refused(encoder_template, template):
    shown = Conversation([{'role': 'user', 'content': [{'type': 'image', 'image': 'cat.png'}]}], label=0, images=['cat.png'])
    [empty, picture] = make().encode_batch([talk(0, ''), shown], encoder_template())
    assert 'empty' in str(empty) and 'the row has images, but the model reads text only' in str(picture)


class Fixed:
    """An actor that gives these scores."""

    def __init__(self, scores):
        self.given = scores

    def scores(self, batch):
        return self.given


def judged(problem, labels, scores, **more):
    objective = make(problem, scores.shape[1], **more)
    samples = [Sample([1, 2, 3], [IGNORE_INDEX] * 3, label=label) for label in labels]
    batch = objective.collate(samples)
    with torch.no_grad():
        loss = objective.loss(batch, Actors(Fixed(scores)))
    return objective, loss, objective.weight(batch)


@pytest.mark.parametrize(('problem', 'labels', 'targets'), [
    (SINGLE, [2, 0, 1, 1], torch.tensor([2, 0, 1, 1])),
    (MULTI, [[0, 2], [], [1], [0, 1, 2]], torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]).float()),
    (REGRESSION, [[0.1, 1, -2], [0, 0, 0], [3, 1, 1], [2, 2, 2.5]], torch.tensor([[0.1, 1, -2], [0, 0, 0], [3, 1, 1], [2, 2, 2.5]])),
])  # fmt: skip
def test_the_mean_loss_is_that_of_transformers(problem, labels, targets):
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    objective, loss, weight = judged(problem, labels, scores)
    config = SimpleNamespace(problem_type=problem, num_labels=3)
    assert weight == 4
    torch.testing.assert_close(loss.sum / weight, ForSequenceClassificationLoss(targets, scores, config))


def test_what_is_logged_and_measured():
    scores = torch.tensor([[2.0, 1, 0], [0, 3, 1], [1, 0, 0], [0, 0, 1]])
    objective, loss, _ = judged(SINGLE, [0, 1, 1, 0], scores)
    assert loss.metrics['accuracy'].tolist() == [1, 1, 0, 0]
    figures = objective.measure(loss.outputs)
    assert figures['f1_micro'] == 0.5 and figures['f1_macro'] == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    objective, loss, _ = judged(MULTI, [[0, 1], [1, 2], [0], []], scores - 0.5)
    assert loss.metrics['accuracy'].tolist() == [1, 1, 1, 0] and objective.measure(loss.outputs)['recall'] == 1.0
    objective, loss, _ = judged(REGRESSION, [[1.0], [2.0], [4.0]], torch.tensor([[1.5], [2.5], [3.0]]))
    assert loss.metrics['mae'].tolist() == [0.5, 0.5, 1.0] and loss.metrics['mse'].tolist() == [0.25, 0.25, 1.0]
    assert objective.measure(loss.outputs)['spearman'] == pytest.approx(1.0)


def test_a_loss_of_ones_own():
    def halved(outputs, labels):
        assert outputs['logits'] is outputs.logits and not hasattr(outputs, 'loss')
        return torch.nn.functional.cross_entropy(outputs.logits, labels) / 2

    loss_map['halved_for_seq_cls'] = halved
    try:
        scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
        own = judged(SINGLE, [0, 1, 2, 0], scores, loss_type='halved_for_seq_cls', loss_kwargs={})[1]
        torch.testing.assert_close(own.sum, judged(SINGLE, [0, 1, 2, 0], scores)[1].sum / 2)
    finally:
        del loss_map['halved_for_seq_cls']


def test_the_kind_of_problem_follows_from_one_value():
    assert make(None, 1).problem == REGRESSION and make(None, 2).problem == SINGLE
    with pytest.raises(SwiftError, match='at least two classes'):
        make(SINGLE, 1)
    with pytest.raises(SwiftError, match='2 names for --num_labels 3'):
        make(SINGLE, 3, ('a', 'b'))


def test_the_order_of_classes_is_that_of_numbers_or_the_alphabet():
    assert ordered(['b', 'a', 'c']) == (3, ('a', 'b', 'c'))
    assert ordered([2, 0, 1]) == (3, ()) and ordered(['1', '0']) == (2, ()) and ordered([5, 1]) == (6, ())
    assert ordered([1, -1, 10]) == (3, ('-1', '1', '10'))
    assert ordered(['PER', 'O', 'LOC']) == (3, ('O', 'LOC', 'PER'))


def test_stored_tokens_know_their_classes():
    assert len({make(names=NAMES).fingerprint, make(names=NAMES[::-1]).fingerprint, make().fingerprint, make(MULTI).fingerprint}) == 4


@pytest.mark.parametrize('label', [float('nan'), float('inf'), 1.5, '²', '--1'])
def test_a_label_that_is_no_number_of_a_class_is_one_bad_row(label):
    with pytest.raises(RowError, match='unknown class'):
        Classes(3).number(label)
    assert [Classes(3).number(value) for value in (2, 2.0, '2', True)] == [2, 2, 2, 1]
