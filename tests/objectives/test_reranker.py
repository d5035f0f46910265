"""Rerankers: how query and document are read together, what a row must have, losses and figures by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from swift.arguments.template import TemplateArgs
from swift.core.errors import RowError, RowTooLong, SwiftError
from swift.core.types import Actors
from swift.objectives import get_objective
from swift.objectives.custom import loss_map
from swift.objectives.generative_reranker import INSTRUCTION
from swift.objectives.reranker import listwise, pointwise
from swift.template import get_template
from tests.helpers.tiny import build_tokenizer
from tests.objectives.test_embedding import Args, encoder_tokenizer, plain, said, talk


def reranker(**fields):
    return get_objective('reranker', Args(**fields))


def generative(**fields):
    return get_objective('generative_reranker', Args(**{'positive_token': 'a', 'negative_token': 'n', **fields}))


@pytest.fixture(scope='module')
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope='module')
def bert_tokenizer():
    return encoder_tokenizer()


# ---- how they are read


def test_an_encoder_reads_the_pair_of_its_tokenizer_with_token_types(bert_tokenizer):
    ((sample,),) = reranker().encode_batch([talk('a b', ['c'], ['d e'])], plain(bert_tokenizer))
    assert list(sample.input_ids) == [2, 4, 5, 3, 6, 3, 2, 4, 5, 3, 7, 8, 3] and list(sample.lengths) == [6, 7]
    assert sample.extra['positives'] == 1 and sample.extra['second'] == [4, 4]
    flat, padded = reranker().collate([sample]), reranker().collate([sample], padded=True)
    assert flat.inputs['token_type_ids'].tolist() == [[0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1]]
    assert padded.inputs['token_type_ids'].tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1, 1]]
    encoded = bert_tokenizer(['a b', 'a b'], ['c', 'd e'], padding=True)
    assert padded.input_ids.tolist() == encoded['input_ids'] and padded.inputs['token_type_ids'].tolist() == encoded['token_type_ids']


def test_the_document_of_a_long_pair_is_cut_and_never_the_query(bert_tokenizer):
    row = talk('a b', ['c d e f'], ['c'])
    for side, document in (('right', [6, 7]), ('left', [8, 9])):
        ((sample,),) = reranker().encode_batch([row], plain(bert_tokenizer, max_length=7, truncation_strategy=side))
        assert list(sample.input_ids[:7]) == [2, 4, 5, 3, *document, 3] and list(sample.lengths) == [7, 6]
    for settings in (dict(max_length=7), dict(max_length=5, truncation_strategy='right')):
        (error,) = reranker().encode_batch([row], plain(bert_tokenizer, **settings))
        assert isinstance(error, RowTooLong) and error.source == 'f.jsonl:1'


def test_a_decoder_reads_a_question_and_its_answer(tokenizer):
    row = talk('how', ['thus'], ['or so'])
    ((sample,),) = reranker().encode_batch([row], get_template(tokenizer))
    expected = [
        tokenizer.apply_chat_template([*said('how'), *said(text, 'assistant')], tokenize=True, return_dict=False) for text in ('thus', 'or so')
    ]
    assert list(sample.input_ids) == [i for part in expected for i in part] and list(sample.lengths) == [len(part) for part in expected]


def test_a_decoder_without_chat_template_reads_two_lines_that_end_in_eos(tokenizer):
    ((sample,),) = reranker().encode_batch([talk('how', ['thus'], ['so'])], plain(tokenizer))
    expected = [[*tokenizer(f'how\n{text}')['input_ids'], tokenizer.eos_token_id] for text in ('thus', 'so')]
    assert list(sample.input_ids) == expected[0] + expected[1] and 'second' not in sample.extra


def test_the_question_of_a_generative_reranker(tokenizer):
    row = talk('how', ['thus'], ['so'])
    ((sample,),) = generative().encode_batch([row], get_template(tokenizer))
    task = (
        'Judge whether the Document meets the requirements based on the Query and the Instruct provided. '
        'Note that the answer can only be "a" or "n".'
    )

    def prompt(instruction, document):
        body = f'<Instruct>: {instruction}\n<Query>: how\n<Document>: {document}'
        return f'<|im_start|>system\n{task}<|im_end|>\n<|im_start|>user\n{body}<|im_end|>\n<|im_start|>assistant\n'

    first, second = sample.segment_lengths
    assert tokenizer.decode(sample.input_ids[:first]) == prompt(INSTRUCTION, 'thus')
    assert tokenizer.decode(sample.input_ids[first:]) == prompt(INSTRUCTION, 'so')
    row.messages.insert(0, {'role': 'system', 'content': 'Find the manner'})
    ((sample,),) = generative().encode_batch([row], get_template(tokenizer))
    assert tokenizer.decode(sample.input_ids[: sample.lengths[0]]) == prompt('Find the manner', 'thus')
    row.messages.pop(0)
    ((sample,),) = generative().encode_batch([row], get_template(tokenizer, TemplateArgs(system='From outside')))
    assert tokenizer.decode(sample.input_ids[: sample.lengths[0]]) == prompt('From outside', 'thus')


@pytest.mark.parametrize('side', ['left', 'right'])
def test_a_long_document_of_a_question_is_cut_and_the_question_stays(tokenizer, side):
    document = ' '.join(f'word{n}' for n in range(60))
    ((whole,),) = generative().encode_batch([talk('how', [document], ['so'])], get_template(tokenizer))
    limit = whole.segment_lengths[0] - 50
    ((sample,),) = generative().encode_batch(
        [talk('how', [document], ['so'])], get_template(tokenizer, TemplateArgs(max_length=limit, truncation_strategy=side))
    )
    text = tokenizer.decode(sample.input_ids[: sample.lengths[0]])
    assert limit - 3 <= sample.lengths[0] <= limit
    assert text.startswith('<|im_start|>system\nJudge') and text.endswith('<|im_end|>\n<|im_start|>assistant\n') and '<Query>: how\n' in text
    assert ('word0 ' in text) == (side == 'right') and ('word59' in text) == (side == 'left')
    (error,) = generative().encode_batch([talk('how', [document], ['so'])], get_template(tokenizer, TemplateArgs(max_length=limit)))
    assert isinstance(error, RowTooLong)


def test_answers_must_be_one_token_each(tokenizer):
    with pytest.raises(SwiftError, match="--positive_token 'yes' is 3 tokens of this model"):
        generative(positive_token='yes').encode_batch([talk('a', ['b'], ['c'])], get_template(tokenizer))
    with pytest.raises(SwiftError, match='are the same token'):
        generative(negative_token='a').encode_batch([talk('a', ['b'], ['c'])], get_template(tokenizer))


class Dictated:
    """An actor whose logits are its input ids: of token t at the place of token i, i · t."""

    def logits(self, batch, index):
        return batch.input_ids.reshape(-1)[index, None].float() * torch.arange(600)


def test_the_score_is_the_difference_of_two_logits_after_the_last_token(tokenizer):
    objective = generative()
    rows = objective.encode_batch([talk('how', ['thus'], ['so']), talk('who', ['me'], ['you'])], get_template(tokenizer))
    samples = [sample for (sample,) in rows]
    yes, no = (tokenizer(word)['input_ids'][0] for word in 'an')
    last = samples[0].input_ids[-1]
    for padded in (False, True):
        batch = objective.collate(samples, padded)
        assert objective.scores(batch, Actors(Dictated())).tolist() == [last * (yes - no)] * 4


# ---- rows


@pytest.mark.parametrize(('fields', 'row', 'what'), [
    ({}, talk('a', columns={'mood': 1}), 'the row has messages, mood, but no document that answers it; it is read from positive_messages'),
    ({}, talk('a', ['b']), 'but no document that does not answer it, and no label; it is read from negative_messages'),
    (dict(loss_type='listwise_reranker'), talk('a', ['b'], label=1), 'but no document that does not answer it'),
    (dict(loss_type='listwise_reranker'), talk('a', ['b'], ['c'], label=0.5), 'label is 0.5, but listwise_reranker takes every positive as one'),
    ({}, talk('a', ['b'], label='high'), "label must be a number from 0 to 1, got 'high'"),
    ({}, talk('a', ['b'], label=3), 'label must be a number from 0 to 1, got 3'),
    ({}, talk('a', [''], ['c']), 'a text of this row is empty'),
])  # fmt: skip
def test_a_row_that_does_not_fit_says_why(tokenizer, fields, row, what):
    for objective in (reranker(**fields), generative(**fields)):
        _, error, _ = objective.encode_batch([talk('a', ['b'], ['c']), row, talk('a', ['b'], ['c'])], get_template(tokenizer))
        assert isinstance(error, RowError) and str(error).startswith('f.jsonl:1: ') and what in str(error)


def test_graded_pairs_and_a_bounded_number_of_documents(tokenizer):
    rows = [talk('a', ['b', 'c', 'd'], ['e', 'f', 'g']), talk('h', ['i'], label=0.25)]
    objective = reranker(max_positive_samples=2, max_negative_samples=1)
    batch = objective.collate([sample for (sample,) in objective.encode_batch(rows, get_template(tokenizer))])
    assert batch.extra['ranking']['relevance'].tolist() == [1, 1, 0, 0.25]
    assert batch.extra['ranking']['row'].tolist() == [0, 0, 0, 1] and batch.extra['ranking']['query'].unique().numel() == 2
    assert objective.weight(batch) == 4 and reranker(loss_type='listwise_reranker').weight(batch) == 2


# ---- losses and figures


def test_pointwise_by_hand():
    z, relevance = torch.tensor([2.0, -1.0, 0.0]), torch.tensor([1.0, 0.0, 0.25])
    values, metrics = pointwise(z, relevance)
    assert values.tolist() == pytest.approx([math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)), math.log(2)], rel=1e-6)
    assert metrics['accuracy'].tolist() == [1, 1, 1]
    assert metrics['positive_score'].tolist() == pytest.approx([1 / (1 + math.exp(-2))])


def test_listwise_by_hand():
    """Two positives of one row never stand against each other, nor against the negatives of the other row."""
    z = torch.tensor([2.0, 1.0, 0.5, 3.0, 9.0])
    relevant, row = torch.tensor([True, True, False, True, False]), torch.tensor([0, 0, 0, 1, 1])
    values, metrics = listwise(z, relevant, row, 0.5)
    expected = [-F.log_softmax(torch.tensor(pair) / 0.5, 0)[0].item() for pair in ([2.0, 0.5], [1.0, 0.5], [3.0, 9.0])]
    assert values.tolist() == pytest.approx(expected, rel=1e-6)
    assert metrics['accuracy'].tolist() == [1, 1, 0] and metrics['margin'].tolist() == [1.5, 0.5, -6.0]


def test_documents_of_one_query_are_ranked_together_wherever_they_stand(tokenizer):
    """Three rows of one document each, the first and the last of the same query: relevant at rank 2 of 2."""
    rows = [talk('who', ['me'], label=1), talk('how', ['thus'], label=0), talk('who', ['you'], label=0)]
    objective = reranker()
    ranking = objective.collate([sample for (sample,) in objective.encode_batch(rows, get_template(tokenizer))]).extra['ranking']
    found = objective.measure({'scores': torch.tensor([0.1, 0.5, 0.9]), 'relevance': ranking['relevance'], 'query': ranking['query']})
    assert found == pytest.approx({'mrr': 0.5, 'ndcg@10': 1 / math.log2(3)})


@pytest.fixture
def own_loss():
    @loss_map.register('squared')
    def squared(outputs, labels):
        return (outputs.logits[:, 0] - labels).square().mean()

    yield
    del loss_map['squared']


class Scored:
    """An actor that scores documents by their length."""

    def scores(self, batch):
        return batch.lengths[:, None].float()


def test_a_loss_of_ones_own(own_loss, tokenizer):
    objective = reranker(loss_type='squared')
    ((sample,),) = objective.encode_batch([talk('how', ['thus'], ['so'])], plain(tokenizer))
    batch = objective.collate([sample])
    loss = objective.loss(batch, Actors(Scored()))
    first, second = sample.segment_lengths
    assert loss.sum.item() == (first - 1) ** 2 + second**2 and objective.weight(batch) == 2
    with pytest.raises(SwiftError, match="did you mean 'listwise_reranker'"):
        reranker(loss_type='listwise_rerankr')


def test_what_decides_the_tokens_is_in_the_fingerprint():
    prints = [generative().fingerprint, generative(negative_token='o').fingerprint, generative(max_negative_samples=3).fingerprint,
              reranker().fingerprint, reranker(loss_type='listwise_reranker').fingerprint]  # fmt: skip
    assert len(set(prints)) == 5
