"""/v1/completions: raw text, no chat template."""

import pytest

from swift.core.types import Prompt
from swift.infer_engine import RequestConfig

CHAT = '<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n'


def ask(prompt, **fields) -> dict:
    return {'model': 'tiny', 'prompt': prompt, 'max_tokens': 8, 'temperature': 0, **fields}


def test_the_prompt_is_continued_as_it_is(client, tiny_engine):
    answer = client.completions.create(**ask(CHAT))
    assert answer.choices[0].text == '42' and answer.choices[0].finish_reason == 'stop'
    assert answer.usage.prompt_tokens == len(tiny_engine.tokenizer.encode(CHAT))
    bare = client.completions.create(**ask('12 + 30 = '))
    ids = tiny_engine.tokenizer.encode('12 + 30 = ')
    own = tiny_engine.generate([Prompt(ids)], [RequestConfig(max_tokens=8, temperature=0)], [None])[0][0]
    assert bare.choices[0].text == own.text and bare.usage.completion_tokens == len(own.token_ids)


def test_sixteen_tokens_unless_told_otherwise(client):
    body = {**ask('one two', extra_body={'ignore_eos': True}), 'max_tokens': None}
    assert client.completions.create(**body).usage.completion_tokens == 16


def test_token_ids_and_lists(client, tiny_engine):
    ids = tiny_engine.tokenizer.encode(CHAT)
    other = CHAT.replace('12', '11')
    assert client.completions.create(**ask(ids)).choices[0].text == '42'
    for prompts in ([CHAT, other], [ids, tiny_engine.tokenizer.encode(other)]):
        answer = client.completions.create(**ask(prompts, n=2))
        assert [(choice.index, choice.text) for choice in answer.choices] == [(0, '42'), (1, '42'), (2, '41'), (3, '41')]


def test_echo_and_logprobs(client):
    assert client.completions.create(**ask(CHAT, echo=True)).choices[0].text == CHAT + '42'
    shown = client.completions.create(**ask(CHAT, logprobs=2)).choices[0].logprobs
    assert shown.tokens[:2] == ['4', '2'] and shown.text_offset[:2] == [0, 1]
    assert shown.token_logprobs[0] == pytest.approx(shown.top_logprobs[0]['4']) and len(shown.top_logprobs[0]) == 2


@pytest.mark.parametrize('fields', [{}, {'n': 2}, {'echo': True}, {'logprobs': 1}])
def test_a_stream_says_the_same(client, fields):
    prompts = [CHAT, CHAT.replace('12', '11')]
    whole = client.completions.create(**ask(prompts, **fields))
    texts = [''] * len(whole.choices)
    reasons = [None] * len(whole.choices)
    usage = None
    for chunk in client.completions.create(**ask(prompts, **fields), stream=True, stream_options={'include_usage': True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
        usage = chunk.usage or usage
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices] and usage == whole.usage


def test_what_is_refused(call):
    for fields, param in (
        ({'suffix': 'x'}, 'suffix'), ({'best_of': 3}, 'best_of'), ({'prompt': [999999]}, 'prompt'), ({'prompt': ''}, 'prompt'),
        ({'echo': True, 'logprobs': 1}, 'logprobs'), ({'prompt': [[1], []]}, 'prompt[1]'), ({'logprobs': 9}, 'logprobs'),
        ({'prompt': 'one ' * 4000}, 'prompt'), ({'messages': []}, 'messages'),
    ):  # fmt: skip
        status, body = call('/v1/completions', ask('x', **fields) if 'prompt' not in fields else {**ask('x'), **fields})
        assert (status, body['error']['param']) == (400, param), body


def test_a_form_that_can_not_be_is_named(call):
    status, body = call('/v1/completions', {'model': 'tiny', 'prompt': 'x', 'guided_regex': '(a'})
    assert status == 400 and body['error']['param'] == 'guided_regex' and 'unclosed group' in body['error']['message']
