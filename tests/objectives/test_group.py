"""Conversations read as texts that belong together."""

from swift.dataset import AutoPreprocessor
from swift.objectives.group import as_group

U = lambda text: {'role': 'user', 'content': text}  # noqa: E731


def group(row):
    found = as_group(AutoPreprocessor()(row))
    return found.messages, found.positives, found.negatives, found.label


def test_a_query_with_its_response_is_a_pair():
    assert group({'query': 'a', 'response': 'p'}) == ([U('a')], [[U('p')]], None, None)
    assert group({'query': 'a', 'response': 'p', 'label': 0.8}) == ([U('a')], [[U('p')]], None, 0.8)
    assert group({'question': 'a', 'answer': 'p', 'system': 's'})[0] == [{'role': 'system', 'content': 's'}, U('a')]


def test_rejected_answers_are_texts_that_do_not_belong():
    assert group({'query': 'a', 'response': 'p', 'rejected_response': 'n'}) == ([U('a')], [[U('p')]], [[U('n')]], None)
    assert group({'query': 'a', 'response': 'p', 'rejected_response': ['n', 'm']})[2] == [[U('n')], [U('m')]]


def test_what_is_a_group_already_or_has_no_answer_stays():
    for row in ({'query': 'a', 'positive': 'p', 'negative': ['n']}, {'query': 'a'}, {'text': 'a'},
                {'messages': [U('a'), {'role': 'assistant', 'content': 'b'}], 'positive_messages': [[U('p')]]}):  # fmt: skip
        talk = AutoPreprocessor()(row)
        assert as_group(talk) is talk
