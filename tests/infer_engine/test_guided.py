"""Answers of a given form: each has it, free answers beside it are what they are alone, and the form only leaves tokens out."""

import json
import re
import sys

import pytest
import torch

from swift.core.errors import MissingDependencyError, SwiftError
from swift.infer_engine import InferRequest, RequestConfig, TransformersEngine
from swift.infer_engine.client import Asked
from swift.infer_engine.client_messages import chat_settings
from swift.infer_engine.guided import Guides
from swift.infer_engine.remote_model import sampling
from swift.infer_engine.sglang import SglangEngine

pytest.importorskip('llguidance')

SCHEMA = {
    'type': 'object',
    'properties': {
        'name': {'type': 'string', 'maxLength': 12},
        'age': {'type': 'integer', 'minimum': 0, 'maximum': 150},
        'colours': {'type': 'array', 'items': {'enum': ['red', 'green']}, 'minItems': 1, 'maxItems': 3},
        'note': {'anyOf': [{'type': 'null'}, {'type': 'boolean'}]},
    },
    'required': ['name', 'age', 'colours', 'note'],
    'additionalProperties': False,
}
WILD = {'temperature': 1.5, 'top_k': 0, 'top_p': 1.0, 'max_tokens': 300}
QUESTIONS = ['What is 12 + 30?', 'Say hello.', 'Who are you?', 'Think first: 47 + 38 = ?']


@pytest.fixture(scope='module')
def tiny():
    return TransformersEngine('tiny', max_batch_size=8)


@pytest.fixture(params=['slots', 'static'])
def engine(request, tiny, monkeypatch):
    """The same model in both lanes."""
    tiny.infer([ask('x')], RequestConfig(max_tokens=1))  # it has found out about itself
    assert tiny._way[0] == 'slots'
    if request.param == 'static':
        monkeypatch.setattr(tiny, '_way', ('static', True))
    return tiny


def ask(text: str) -> InferRequest:
    return InferRequest([{'role': 'user', 'content': text}])


def fits(value) -> bool:
    """Whether a value is what SCHEMA describes."""
    return (
        list(value) == ['name', 'age', 'colours', 'note'] and isinstance(value['name'], str) and len(value['name']) <= 12
        and type(value['age']) is int and 0 <= value['age'] <= 150 and 1 <= len(value['colours']) <= 3
        and set(value['colours']) <= {'red', 'green'} and value['note'] in (None, True, False)
    )  # fmt: skip


def test_twenty_wild_answers_are_what_the_schema_says(engine):
    config = RequestConfig(**WILD, n=5, seed=1, guided_json=SCHEMA)
    texts = []
    for answer in engine.infer([ask(text) for text in QUESTIONS], config):
        for choice in answer.choices:
            assert choice.finish_reason == 'stop'
            assert fits(json.loads(choice.message.content)), choice.message.content
            texts.append(choice.message.content)
    assert len(set(texts)) == 20


REGEXES = [r'\d{3}-\d{4}', r'(yes|no), [a-z]{1,8}\.', r'^[A-Z][a-z]+( [A-Z][a-z]+){0,2}$', r'[äöü€😀]{2,5}']


@pytest.mark.parametrize('regex', REGEXES)
def test_answers_match_the_expression(engine, regex):
    answers = engine.infer([ask(text) for text in QUESTIONS], RequestConfig(**WILD, seed=2, guided_regex=regex))
    for answer in answers:
        assert answer.choices[0].finish_reason in ('stop', 'length')
        if answer.choices[0].finish_reason == 'stop':
            assert re.fullmatch(regex, answer.choices[0].message.content)
    assert any(answer.choices[0].finish_reason == 'stop' for answer in answers)


CHOICES = ['a', 'ab', 'abc', 'blue', 'größer', '42 or more', 'hello there']


def by_hand(engine, text: str, choices: list[str]) -> list[int]:
    """Greedy tokens by the plain model: of the tokens whose bytes lead on to a choice, the likeliest; the end where a choice is whole.

    Where one choice is left, its rest comes in the tokens that the tokenizer makes of it.
    """
    tokenizer, eos = engine.tokenizer, engine.tokenizer.eos_token_id
    prompt, found = engine.template.prompt(ask(text).conversation()).input_ids, []
    words = {i: tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids}
    written = [''.join(tokenizer.convert_ids_to_tokens(tokenizer.encode(choice, add_special_tokens=False))) for choice in choices]
    while True:
        said = ''.join(words[i] for i in found)
        allowed = [i for i, word in words.items() if word and any(text.startswith(said + word) for text in written)]
        left = [text for text in written if text.startswith(said)]
        if said in written:
            if left == [said]:
                return found
            allowed.append(eos)
        elif said and len(left) == 1:
            rest = tokenizer.convert_tokens_to_string([left[0][len(said) :]])
            allowed = tokenizer.encode(rest, add_special_tokens=False)[:1]
        with torch.no_grad():
            logits = engine.model(input_ids=torch.tensor([prompt + found])).logits[0, -1]
        masked = torch.full_like(logits, float('-inf'))
        masked[allowed] = logits[allowed]
        found.append(int(masked.argmax()))
        if found[-1] == eos:
            return found


def test_greedy_choices_are_the_argmax_of_what_is_allowed(engine):
    config = RequestConfig(temperature=0, guided_choice=CHOICES, return_details=True)
    answers = engine.infer([ask(text) for text in QUESTIONS], config)
    for text, answer in zip(QUESTIONS, answers, strict=True):
        assert answer.choices[0].token_ids == by_hand(engine, text, CHOICES)
        assert answer.choices[0].message.content in CHOICES and answer.choices[0].finish_reason == 'stop'


def test_every_choice_is_drawn(engine):
    drawn = engine.infer([ask('Choose.')], RequestConfig(temperature=30.0, seed=5, n=200, top_k=0, top_p=1.0, guided_choice=['a', 'ab', 'blue']))[0]
    counts = {text: sum(choice.message.content == text for choice in drawn.choices) for text in ('a', 'ab', 'blue')}
    assert sum(counts.values()) == 200 and min(counts.values()) > 10


@pytest.mark.parametrize('settings', [{'temperature': 0}, {'temperature': 1.0, 'seed': 7}, {'temperature': 1.2, 'seed': 8, 'top_k': 20, 'top_p': 0.9}])
def test_free_answers_beside_guided_ones_are_what_they_are_alone(engine, settings):
    free = RequestConfig(**settings, max_tokens=40, return_details=True, logprobs=True)
    alone = [engine.infer([ask(text)], free)[0].choices[0] for text in QUESTIONS]
    guided = [RequestConfig(**WILD, seed=9, guided_json=SCHEMA), RequestConfig(**WILD, seed=9, guided_regex=REGEXES[0])]
    asked = [ask(text) for text in QUESTIONS for _ in range(3)]
    mixed = engine.infer(asked, [config for _ in QUESTIONS for config in (guided[0], free, guided[1])])
    for own, beside in zip(alone, mixed[1::3], strict=True):
        assert beside.choices[0].token_ids == own.token_ids
    assert all(fits(json.loads(answer.choices[0].message.content)) for answer in mixed[::3])


def test_logprobs_are_the_models_own(engine):
    config = RequestConfig(temperature=1.0, seed=1, guided_regex=r'\d{3}-\d{4}', logprobs=True, top_logprobs=3, return_details=True)
    choice = engine.infer([ask('Say hello.')], config)[0].choices[0]
    prompt = engine.template.prompt(ask('Say hello.').conversation()).input_ids
    with torch.no_grad():
        logps = torch.log_softmax(engine.model(input_ids=torch.tensor([prompt + choice.token_ids])).logits[0].float(), -1)
    for place, entry in enumerate(choice.logprobs['content']):
        own = logps[len(prompt) - 1 + place]
        assert entry['logprob'] == pytest.approx(float(own[choice.token_ids[place]]), abs=2e-3)
        assert entry['top_logprobs'][0]['token_id'] == int(own.argmax())
    assert choice.logprobs['content'][0]['logprob'] < -1  # it would have said something else


def test_streams_say_the_same(engine):
    config = RequestConfig(**WILD, seed=4, n=2, response_format={'type': 'json_schema', 'json_schema': {'name': 'person', 'schema': SCHEMA}})
    whole = engine.infer([ask('Who are you?')], config)[0]
    said, reasons = ['', ''], [None, None]
    for piece in engine.infer([ask('Who are you?')], RequestConfig(**{**vars(config), 'stream': True}))[0]:
        for choice in piece.choices:
            said[choice.index] += choice.delta.content or ''
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert said == [choice.message.content for choice in whole.choices] and reasons == ['stop', 'stop']
    assert said[0] != said[1] and all(fits(json.loads(text)) for text in said)


def test_the_end_comes_when_the_form_is_complete_and_not_before(tiny):
    def one(**fields):
        choice = tiny.infer([ask('Say hello.')], RequestConfig(temperature=0, return_details=True, **fields))[0].choices[0]
        return choice.message.content, choice.finish_reason, choice.token_ids

    digits = tiny.tokenizer.convert_tokens_to_ids(list('0123456789'))
    text, reason, ids = one(guided_regex=r'\d{5}', stop_token_ids=digits)
    assert reason == 'stop' and re.fullmatch(r'\d{5}', text)  # no digit ends it where it must go on
    text, reason, ids = one(guided_regex=r'\d{2,9}', stop_token_ids=digits)
    assert reason == 'stop' and re.fullmatch(r'\d{2,9}', text)
    assert one(guided_choice=['yes'], ignore_eos=True)[:2] == ('yes', 'stop')
    assert one(guided_regex='[a-z]+', ignore_eos=True, max_tokens=7)[1] == 'length'
    assert one(guided_json={'type': 'object'}, max_tokens=2)[1] == 'length'
    assert one(response_format={'type': 'text'}) == one()
    assert json.loads(one(guided_json=json.dumps(SCHEMA))[0])['name'] is not None


def test_a_thought_that_the_prompt_opened_is_free(tiny):
    from swift.core.types import Prompt

    prompt = tiny.template.prompt(ask('Think first: 47 + 38 = ?').conversation())
    opened = Prompt([*prompt.input_ids, *tiny.tokenizer.encode('<think>\n', add_special_tokens=False)], prompt.text + '<think>\n', prompt.stop_token_ids)
    found = tiny.generate([opened], [RequestConfig(temperature=0, max_tokens=100, guided_choice=['blue', 'green'])], [None])[0][0]
    thought, _, said = found.text.partition('</think>')
    assert '47' in thought and said in ('blue', 'green') and found.finish_reason == 'stop'


MISTAKES = [
    ({'guided_regex': '(a|'}, 'guided_regex: unclosed group'), ({'guided_regex': '(?=a)b'}, 'look-ahead'), ({'guided_regex': ''}, 'no text'),
    ({'guided_json': {'type': 'objekt'}}, 'guided_json: Invalid type: objekt'), ({'guided_json': '{'}, 'no JSON'), ({'guided_json': 5}, 'object'),
    ({'guided_choice': []}, 'guided_choice'), ({'guided_choice': 'ab'}, 'list of texts'), ({'guided_grammar': 'start: foo'}, 'unknown name: "foo"'),
    ({'response_format': {'type': 'xml'}}, 'json_schema'), ({'response_format': {'type': 'json_schema', 'json_schema': {'name': 'x'}}}, 'no schema'),
    ({'guided_regex': 'a', 'guided_choice': ['b']}, 'guided_choice: not together with guided_regex'),
    ({'guided_regex': 'a', 'num_beams': 2}, 'not with guided output'), ({'guided_regex': '(){0}'}, 'empty text'), ({'guided_regex': '\ud800'}, 'half a character'),
]  # fmt: skip


@pytest.mark.parametrize('fields, words', MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes_are_one_line(tiny, fields, words):
    with pytest.raises(SwiftError) as caught:
        tiny.infer([ask('x')], RequestConfig(max_tokens=5, **fields))
    assert words in str(caught.value) and '\n' not in str(caught.value)


def test_without_the_package_only_guided_requests_fail(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, 'llguidance', None)
    monkeypatch.setattr(tiny, '_guides', Guides(tiny.tokenizer))
    assert tiny.infer([ask('What is 12 + 30?')], RequestConfig(max_tokens=5, temperature=0))[0].choices[0].message.content == '42'
    with pytest.raises(MissingDependencyError, match=r"pip install 'swift-finetune\[guided\]'"):
        tiny.infer([ask('x')], RequestConfig(guided_regex='a'))


def test_forms_are_compiled_once(tiny, monkeypatch):
    guides = Guides(tiny.tokenizer)
    monkeypatch.setattr(tiny, '_guides', guides)
    for _ in range(2):
        tiny.infer([ask(text) for text in QUESTIONS], RequestConfig(max_tokens=3, n=2, guided_json=SCHEMA))
    tiny.infer([ask('x')], RequestConfig(max_tokens=3, guided_json=json.dumps(SCHEMA)))
    assert len(guides._known) == 1


def test_servers_are_sent_the_form():
    form = {'type': 'json_schema', 'json_schema': {'name': 'answer', 'schema': SCHEMA}}
    assert chat_settings(RequestConfig(response_format=form)) == {'response_format': form}
    assert chat_settings(RequestConfig(guided_json=SCHEMA)) == chat_settings(RequestConfig(guided_json=json.dumps(SCHEMA))) == {'response_format': form}
    assert chat_settings(RequestConfig(response_format={'type': 'text'})) == {}
    for name, value in {'guided_regex': 'a+', 'guided_choice': ['a', 'b']}.items():
        assert chat_settings(RequestConfig(**{name: value})) == {name: value}


def test_engines_that_know_no_forms_refuse(tiny):
    prompt = tiny.template.prompt(ask('x').conversation())
    with pytest.raises(SwiftError, match='guided_regex: this engine'):
        sampling(prompt, RequestConfig(guided_regex='a'), tiny.generation_config, tiny.tokenizer, 100)
    hosted = object.__new__(SglangEngine)
    with pytest.raises(SwiftError, match='guided_choice: sglang is asked for JSON schemas only'):
        hosted._body(Asked(text='x'), RequestConfig(guided_choice=['a']), None)


def test_answers_that_are_sent_back_to_wait_keep_their_place(tiny):
    config = RequestConfig(**WILD, n=3, seed=6, guided_json=SCHEMA)
    asked = [ask(text) for text in QUESTIONS]
    narrow = TransformersEngine(tiny.model, template=tiny.template, max_batch_size=8, kv_cache_tokens=256, prefix_cache_tokens=0)
    for wide, short in zip(tiny.infer(asked, config), narrow.infer(asked, config), strict=True):
        assert [c.message.content for c in short.choices] == [c.message.content for c in wide.choices]
        assert all(fits(json.loads(choice.message.content)) for choice in short.choices)
