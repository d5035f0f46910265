"""Classification of words: where each class stands, for tokenizers of every kind, and what is trained."""

from types import SimpleNamespace

import pytest
import torch

from swift.core.errors import RowError, RowTooLong
from swift.core.types import IGNORE_INDEX, Actors, Conversation
from swift.objectives import get_objective
from swift.template import get_template
from tests.helpers.tiny import save_encoder

NAMES = ('O', 'PER', 'LOC')


def make(names=NAMES):
    return get_objective('token_cls', SimpleNamespace(num_labels=len(names), class_names=list(names)))


def row(words, labels=None, **more):
    return Conversation([{'role': 'user', 'content': ' '.join(words)}], label=labels, columns={'tokens': words}, source='rows.jsonl:7', **more)


@pytest.fixture(scope='module')
def templates(tokenizer, tmp_path_factory):
    """Byte-level BPE, word pieces with specials, and SentencePiece-like with a blank in front."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    metaspace = Tokenizer(models.BPE(unk_token='<unk>'))
    metaspace.pre_tokenizer = pre_tokenizers.Metaspace()
    metaspace.train_from_iterator(['Ask Li about the milk in London . 你好 世界'] * 3, trainers.BpeTrainer(special_tokens=['<unk>', '</s>'], vocab_size=80))
    encoder = AutoTokenizer.from_pretrained(save_encoder(tmp_path_factory.mktemp('encoder') / 'model'))
    made = {
        'bytes': tokenizer, 'pieces': encoder,
        'metaspace': PreTrainedTokenizerFast(tokenizer_object=metaspace, eos_token='</s>', unk_token='<unk>', pad_token='</s>'),
    }  # fmt: skip
    return lambda kind, **settings: get_template(made[kind], use_chat_template=False, **settings)


TEXTS = (['Ask', 'Li', 'about', 'the', 'milk', 'in', 'London', '.'], ['你', '好', ',', '世界'], ['(', 'x', ')', "isn't", 'U.S.'])


@pytest.mark.parametrize('kind', ['bytes', 'pieces', 'metaspace'])
@pytest.mark.parametrize('words', TEXTS, ids=['english', 'chinese', 'signs'])
def test_every_word_stands_on_its_own_first_token(templates, kind, words):
    template = templates(kind)
    [sample] = make().read_batch([row(words)], template)
    assert sample.input_ids == template.tokenizer(' '.join(words))['input_ids']
    places, tokens = sample.extra['words'], template.tokenizer.convert_ids_to_tokens(sample.input_ids)
    assert len(places) == len(words) and places == sorted(set(places))
    ends = [*places[1:], len(tokens) - (kind == 'pieces')]  # with the blank before the next word, where it is a token
    for word, first, end in zip(words, places, ends, strict=True):
        assert template.tokenizer.decode([sample.input_ids[first]]).strip(), 'the blank before a word says nothing about it'
        said = template.tokenizer.convert_tokens_to_string(tokens[first:end]).replace('▁', ' ').replace('##', '').strip()
        assert '<unk>' in said or '[UNK]' in said or said.replace(' ', '').lower() == word.lower()


def test_labels_are_numbered_and_checked(templates):
    good, wrong, few, none = (
        row(['Ask', 'Li'], ['O', 'PER']), row(['Ask', 'Li'], ['O', 'PERR']), row(['Ask', 'Li'], ['O']), row(['Ask', 'Li'])
    )  # fmt: skip
    [[sample], *errors] = make().encode_batch([good, wrong, few, none], templates('bytes'))
    assert sample.label == [0, 1]
    for error, says in zip(errors, ["did you mean 'PER'", '2 words and 1 classes', 'no list of classes'], strict=True):
        assert isinstance(error, RowError) and says in str(error) and 'rows.jsonl:7' in str(error)


def test_plain_text_is_cut_at_blanks(templates):
    talk = Conversation([{'role': 'user', 'content': 'Ask Li'}], label=['O', 'PER'])
    [[sample]] = make().encode_batch([talk], templates('bytes'))
    assert sample.label == [0, 1] and len(sample.extra['words']) == 2


def test_words_beyond_max_length_go_with_their_classes(templates):
    words, labels = TEXTS[0], ['O', 'PER', 'O', 'O', 'O', 'O', 'LOC', 'O']
    [whole] = make().read_batch([row(words)], templates('pieces'))
    limit = len(whole) - 3
    [[right]] = make().encode_batch([row(words, labels)], templates('pieces', max_length=limit, truncation_strategy='right'))
    [[left]] = make().encode_batch([row(words, labels)], templates('pieces', max_length=limit, truncation_strategy='left'))
    assert len(right) == len(left) == limit
    assert right.input_ids == [*whole.input_ids[: limit - 1], whole.input_ids[-1]] and right.extra['words'] == whole.extra['words'][: len(right.label)]
    assert right.label == [NAMES.index(name) for name in labels[: len(right.label)]]
    assert left.label == [NAMES.index(name) for name in labels[-len(left.label) :]] and left.extra['first'] == len(words) - len(left.label)
    for place, word in zip(left.extra['words'], words[-len(left.label) :], strict=True):
        assert left.input_ids[place] == whole.input_ids[whole.extra['words'][words.index(word)]]
    [error] = make().encode_batch([row(words, labels)], templates('pieces', max_length=limit))
    assert isinstance(error, RowTooLong)


def test_a_word_without_tokens_is_not_trained(templates):
    [[sample]] = make().encode_batch([row(['Li', '\u200d', 'the'], ['PER', 'LOC', 'O'])], templates('pieces'))
    assert sample.label == [1, IGNORE_INDEX, 0] and len(sample.extra['words']) == 3
    [error] = make().encode_batch([row(['\u200d'], ['LOC'])], templates('pieces'))
    assert isinstance(error, RowError)


class Table:
    """An actor whose score of class c at position i is table[i, c]."""

    def __init__(self, table):
        self.table = table

    def logits(self, batch, index):
        return self.table[index]


@pytest.mark.parametrize('padded', [False, True])
def test_the_loss_is_the_cross_entropy_at_the_words(templates, padded):
    objective = make()
    rows = [row(['Ask', 'Li'], ['O', 'PER']), row(['\u200d', 'in', 'London', '.'], ['O', 'O', 'LOC', 'O'])]
    first, second = (samples[0] for samples in objective.encode_batch(rows, templates('pieces')))
    batch = objective.collate([first, second], padded=padded)
    table = torch.randn(batch.input_ids.numel(), 3, generator=torch.Generator().manual_seed(0))
    offset = batch.input_ids.shape[1] if padded else len(first)
    places = [*first.extra['words'], *(offset + place for place in second.extra['words'][1:])]
    targets = torch.tensor([0, 1, 0, 2, 0])
    with torch.no_grad():
        loss = objective.loss(batch, Actors(Table(table)))
    torch.testing.assert_close(loss.sum, torch.nn.functional.cross_entropy(table[places], targets, reduction='sum'))
    assert objective.weight(batch) == 5 and objective.word_counts([first, second]) == [2, 4]
    assert loss.metrics['accuracy'].tolist() == (table[places].argmax(-1) == targets).float().tolist()
    assert loss.outputs['begins'].tolist() == [True, False, True, False, False, False]
    figures = objective.measure(loss.outputs)
    assert set(figures) == {'f1_macro', 'f1_micro', 'precision', 'recall'}


def test_tags_are_measured_by_entity():
    objective = make(('O', 'B-PER', 'I-PER'))
    outputs = {
        'predicted': torch.tensor([1, 2, 0, 1, 1]), 'targets': torch.tensor([1, 2, 0, 1, 2]),
        'begins': torch.tensor([True, False, False, True, False]),
    }  # fmt: skip
    assert objective.measure(outputs) == pytest.approx({'f1': 2 / 5, 'precision': 1 / 3, 'recall': 1 / 2})
