"""Rows for embeddings, rerankers, classification and token classification."""

import json

import pytest

from swift.core.errors import RowError
from swift.dataset import AutoPreprocessor
from swift.dataset.convert import to_row

U, A, S = (lambda text, role=role: {'role': role, 'content': text} for role in ('user', 'assistant', 'system'))


def talk(row, **settings):
    return AutoPreprocessor(**settings)(row, 'groups.jsonl:1')


@pytest.mark.parametrize('row', [
    {'anchor': 'a', 'positive': 'p', 'negative': 'n'},
    {'query': 'a', 'pos': ['p'], 'neg': ['n']},
    {'query': 'a', 'positive': ['p'], 'negative': ['n']},
    {'question': 'a', 'document': 'p', 'negatives': ['n']},
    {'query': 'a', 'passage': 'p', 'negative': 'n'},
    {'sentence1': 'a', 'sentence2': 'p', 'negative': 'n'},
    {'query': 'a', 'response': 'p', 'negative': ['n']},
    {'query': 'a', 'positive': 'p', 'rejected_response': ['n']},
    {'anchor': 'a', 'positive': [U('p')], 'negative': [[U('n')]]},
    {'anchor': [U('a')], 'positive': U('p'), 'negative': U('n')},
    {'messages': [U('a')], 'positive_messages': [[U('p')]], 'negative_messages': [[U('n')]]},
    {'messages': [U('a')], 'positive_messages': [U('p')], 'negative_messages': [U('n')]},
    {'messages': json.dumps([U('a')]), 'positive_messages': json.dumps([[U('p')]]), 'negative_messages': json.dumps([[U('n')]])},
    {'messages': [U('a')], 'positive': 'p', 'negative': 'n'},
    {'query': 'a', 'documents': ['n', 'p'], 'labels': [0, 1]},
    {'query': 'a', 'passages': ['p', 'n'], 'label': [True, False]},
    {'query': 'a', 'positive': 'p', 'negative_1': 'n'},
])  # fmt: skip
def test_a_text_with_those_that_belong_to_it_and_those_that_do_not(row):
    found = talk(row)
    assert (found.messages, found.positives, found.negatives) == ([U('a')], [[U('p')]], [[U('n')]])
    assert found.rejected is None and found.label is None and found.columns == {} and not found.text


@pytest.mark.parametrize('row', [
    {'query': 'a', 'pos': ['p', 'q'], 'neg': ['m', 'n']},
    {'messages': [U('a')], 'positive_messages': [[U('p')], [U('q')]], 'negative_messages': [[U('m')], [U('n')]]},
    {'anchor': 'a', 'positive': ['p', 'q'], 'negative_1': 'm', 'negative_2': 'n'},
    {'query': 'a', 'documents': ['m', 'p', 'n', 'q'], 'labels': [0, 1, 0, 1]},
])  # fmt: skip
def test_several_of_each(row):
    found = talk({**row, 'system': 'find it'})
    assert found.messages == [S('find it'), U('a')]  # the instruction stands before the text itself, not before the others
    assert found.positives == [[U('p')], [U('q')]] and found.negatives == [[U('m')], [U('n')]]


@pytest.mark.parametrize(('row', 'label'), [
    ({'sentence1': 'a', 'sentence2': 'p', 'score': 0.8}, 0.8),
    ({'sentence1': 'a', 'sentence2': 'p', 'label': 1}, 1),
    ({'query': 'a', 'document': 'p', 'label': 0}, 0),
    ({'messages': [U('a')], 'positive_messages': [[U('p')]], 'label': 0.25}, 0.25),
    ({'anchor': 'a', 'positive': 'p', 'similarity': 0.1}, 0.1),
    ({'query': 'a', 'pos': ['p'], 'neg': []}, None),
    ({'query': 'a', 'pos': ['p'], 'neg': None}, None),
])  # fmt: skip
def test_pairs_with_and_without_a_score(row, label):
    found = talk(row)
    assert (found.messages, found.positives, found.negatives, found.label) == ([U('a')], [[U('p')]], None, label)


def test_texts_of_several_messages_and_with_brackets():
    found = talk({'messages': [U('a')], 'positive_messages': [[S('s'), U('p')]], 'negative_messages': [[U('n'), A('x')], 'plain']})
    assert found.positives == [[S('s'), U('p')]] and found.negatives == [[U('n'), A('x')], [U('plain')]]
    assert talk({'anchor': 'a', 'positive': '[1] a footnote'}).positives == [[U('[1] a footnote')]]


def test_conversations_are_no_groups():
    for row in ({'question': 'q', 'answer': 'a', 'document': 'd'}, {'query': 'q', 'response': 'a', 'sentence2': 'd'},
                {'messages': [U('q'), A('a')], 'document': 'd'}, {'query': 'q', 'response': 'a', 'positive': True},
                {'messages': [U('q'), A('a')], 'negative': 3}, {'problem': 'q', 'solution': 'a', 'passage': 'd'}):  # fmt: skip
        found = talk(row)
        assert found.messages == [U('q'), A('a')] and found.positives is None and found.negatives is None and found.columns


def test_columns_of_other_names():
    found = talk({'text1': 'a', 'text2': 'p', 'sim': 0.5}, columns={'text1': 'sentence1', 'text2': 'sentence2', 'sim': 'label'})
    assert (found.messages, found.positives, found.label) == ([U('a')], [[U('p')]], 0.5)
    found = talk({'q': 'a', 'good': ['p'], 'bad': ['n']}, columns={'q': 'query', 'good': 'positive', 'bad': 'negative'})
    assert (found.messages, found.positives, found.negatives) == ([U('a')], [[U('p')]], [[U('n')]])
    found = talk({'query': 'a', 'positive_messages': ['p'], 'label': 1}, auto=False)
    assert (found.messages, found.positives, found.label) == ([U('a')], [[U('p')]], 1)


@pytest.mark.parametrize(('row', 'messages', 'label', 'text'), [
    ({'text': 'nice', 'label': 1}, [A('nice')], 1, True),
    ({'text': 'nice', 'label': 'good'}, [A('nice')], 'good', True),
    ({'text': 'nice', 'labels': ['a', 'b']}, [A('nice')], ['a', 'b'], True),
    ({'sentence': 'nice', 'label': 1, 'idx': 7}, [U('nice')], 1, False),
    ({'sentence': 'nice', 'labels': [0, 2]}, [U('nice')], [0, 2], False),
    ({'query': 'nice', 'label': 0.5}, [U('nice')], 0.5, False),
    ({'messages': [U('nice')], 'label': 'good'}, [U('nice')], 'good', False),
    ({'sentence': 'nice'}, [U('nice')], None, False),
])  # fmt: skip
def test_rows_to_classify(row, messages, label, text):
    found = talk(row)
    assert (found.messages, found.label, found.text) == (messages, label, text)


@pytest.mark.parametrize(('words', 'tags'), [
    ('tokens', 'labels'), ('tokens', 'ner_tags'), ('words', 'tags'), ('words', 'label'), ('tokens', 'label'),
])  # fmt: skip
def test_words_with_a_tag_each(words, tags):
    found = talk({words: ['Anna', 'sleeps'], tags: ['PER', 'O'], 'id': 3})
    assert found.messages == [U('Anna sleeps')] and found.label == ['PER', 'O']
    assert found.columns == {'tokens': ['Anna', 'sleeps'], 'id': 3}


@pytest.mark.parametrize(('row', 'what'), [
    ({'query': 'a', 'neg': ['n']}, 'hold negatives, but no text that belongs to it; it is read from positive_messages, positive'),
    ({'query': 'a', 'pos': ['p', 'n'], 'neg': ['n']}, 'the same text is among the positives and the negatives'),
    ({'query': 'a', 'pos': ['']}, "pos must hold strings or messages, got ''"),
    ({'query': 'a', 'pos': ['p'], 'neg': [3]}, 'neg must hold strings or messages, got 3'),
    ({'query': 'a', 'positive': {'role': 'usre', 'content': 'p'}}, "positive: message 0: unknown role 'usre'"),
    ({'query': 'a', 'documents': ['p', 'n'], 'labels': [1]}, 'documents and labels must be lists of one length, got 2 and 1'),
    ({'query': 'a', 'documents': ['p', 'n'], 'labels': [1, 2]}, 'must be 1 .* or 0'),
    ({'positive': 'p', 'negative': 'n'}, 'are no known shape'),
    ({'tokens': ['a', 'b'], 'labels': [1]}, 'tokens holds 2 words, labels 1: there must be one for each word'),
    ({'words': ['a', 'b'], 'tags': 'O'}, 'words holds 2 words, tags a str'),
])  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(row, what):
    with pytest.raises(RowError, match=what) as wrong:
        talk(row)
    assert str(wrong.value).startswith('groups.jsonl:1: ') and '\n' not in str(wrong.value)


@pytest.mark.parametrize('row', [
    {'query': 'a', 'pos': ['p', 'q'], 'neg': ['m', 'n'], 'prompt': 'kept'},
    {'sentence1': 'a', 'sentence2': 'p', 'score': 0.25},
    {'text': 'nice', 'label': 'good', 'id': 1},
    {'text': 'nice', 'labels': [1, 2]},
    {'sentence': 'nice', 'label': 1},
    {'tokens': ['Anna', 'sleeps'], 'ner_tags': [1, 0], 'id': 3},
])  # fmt: skip
def test_a_stored_row_reads_back_as_the_same(row):
    first = talk(row)
    assert talk(json.loads(json.dumps(to_row(first)))) == first


def test_a_conversation_with_a_list_of_words_beside_it_stays_a_conversation():
    talk = AutoPreprocessor()({'prompt': 'q', 'response': 'a', 'tokens': ['some', 'words']})
    assert [message['content'] for message in talk.messages] == ['q', 'a'] and talk.columns['tokens'] == ['some', 'words']
    talk = AutoPreprocessor()({'question': 'q', 'tokens': ['some', 'words'], 'tags': [0, 1]})
    assert (talk.messages[0]['content'], talk.label) == ('some words', [0, 1])
