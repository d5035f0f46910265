"""/v1/chat/completions through OpenAI's client: the engine's answers, whole and in pieces."""

import json

import pytest

from swift.infer_engine import RequestConfig

from .conftest import say

WEATHER = {
    'type': 'function',
    'function': {'name': 'get_weather', 'description': 'Weather of a city.', 'parameters': {'type': 'object', 'properties': {'city': {'type': 'string', 'description': 'Name of the city'}}, 'required': ['city']}},
}


def put_together(chunks) -> list[dict]:
    """The messages that a stream said."""
    said: dict[int, dict] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            one = said.setdefault(choice.index, {'content': '', 'reasoning': '', 'calls': [], 'reason': None})
            one['content'] += choice.delta.content or ''
            one['reasoning'] += getattr(choice.delta, 'reasoning_content', None) or ''
            one['calls'] += choice.delta.tool_calls or []
            one['reason'] = choice.finish_reason or one['reason']
    return [said[index] for index in sorted(said)]


def test_an_answer_is_the_engines(client, tiny_engine):
    answer = client.chat.completions.create(**say('What is 12 + 30?'))
    own = tiny_engine.infer([{'messages': say('What is 12 + 30?')['messages']}], RequestConfig(max_tokens=32, temperature=0))[0]
    assert answer.choices[0].message.content == own.choices[0].message.content == '42'
    assert answer.choices[0].finish_reason == 'stop'
    assert vars(own.usage) == {name: getattr(answer.usage, name) for name in vars(own.usage)}
    assert (answer.object, answer.model, answer.choices[0].message.role) == ('chat.completion', 'tiny', 'assistant')


@pytest.mark.parametrize('text', ['What is 12 + 30?', 'Think first: 47 + 38 = ?', 'Say hello.'])
def test_a_stream_says_the_same(client, text):
    whole = client.chat.completions.create(**say(text, max_tokens=64))
    chunks = list(client.chat.completions.create(**say(text, max_tokens=64), stream=True, stream_options={'include_usage': True}))
    (said,) = put_together(chunks)
    message = whole.choices[0].message
    assert said['content'] == (message.content or '')
    assert said['reasoning'] == (getattr(message, 'reasoning_content', None) or '')
    assert said['reason'] == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].choices[0].delta.role == 'assistant'


def test_a_stream_without_usage_has_none(client):
    chunks = list(client.chat.completions.create(**say('Say hello.'), stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_thoughts_are_apart(client):
    message = client.chat.completions.create(**say('Think first: 47 + 38 = ?', max_tokens=64)).choices[0].message
    assert message.content == '85' and '47' in message.reasoning_content and '<think>' not in message.reasoning_content


def test_several_answers_and_their_seeds(client):
    ask = say('Name a colour.', temperature=1.5, n=3, seed=7, max_tokens=12)
    first, second = (client.chat.completions.create(**ask) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert texts == [choice.message.content for choice in second.choices]
    assert [said['content'] for said in put_together(client.chat.completions.create(**ask, stream=True))] == texts
    other = client.chat.completions.create(**{**ask, 'seed': -8})
    assert texts != [choice.message.content for choice in other.choices]


def test_stop_and_length(client):
    whole = client.chat.completions.create(**say('Repeat: 1 2 3 4')).choices[0].message.content
    assert whole == '1 2 3 4'
    cut = client.chat.completions.create(**say('Repeat: 1 2 3 4', stop=['3 4'])).choices[0]
    assert (cut.message.content.strip(), cut.finish_reason) == ('1 2', 'stop')
    short = client.chat.completions.create(**{**say('Repeat: 1 2 3 4'), 'max_tokens': None}, max_completion_tokens=2)
    assert short.choices[0].finish_reason == 'length' and short.usage.completion_tokens == 2


def test_logprobs(client):
    content = client.chat.completions.create(**say('What is 2 + 3?'), logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert content[0].token == '5' and -0.7 < content[0].logprob <= 0
    assert len(content[0].top_logprobs) == 3 and content[0].top_logprobs[0].logprob == content[0].logprob
    pieces = client.chat.completions.create(**say('What is 2 + 3?'), logprobs=True, top_logprobs=3, stream=True)
    streamed = [entry for chunk in pieces for entry in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])]
    assert [entry.token for entry in streamed] == [entry.token for entry in content]


def test_tools_are_called_unless_they_are_hidden(client):
    ask = say('How is the weather in Moscow?', tools=[WEATHER], max_tokens=64)
    choice = client.chat.completions.create(**ask).choices[0]
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == 'tool_calls' and call.type == 'function'
    assert call.function.name == 'get_weather' and 'Moscow' in json.loads(call.function.arguments).values()
    (said,) = put_together(client.chat.completions.create(**ask, stream=True))
    assert said['reason'] == 'tool_calls' and [(c.index, c.function.name, c.function.arguments) for c in said['calls']] == [
        (0, 'get_weather', call.function.arguments)
    ]
    hidden = client.chat.completions.create(**ask, tool_choice='none')
    plain = client.chat.completions.create(**say('How is the weather in Moscow?', max_tokens=64))
    assert hidden.usage.prompt_tokens == plain.usage.prompt_tokens
    message = hidden.choices[0].message  # the model has learned to call, and calls what it was not shown
    assert message.tool_calls is None and hidden.choices[0].finish_reason == 'stop'
    assert json.loads(message.content) == {'name': 'get_weather', 'arguments': {'city': 'Moscow'}}
    (said,) = put_together(client.chat.completions.create(**ask, tool_choice='none', stream=True))
    assert (said['content'], said['calls'], said['reason']) == (message.content, [], 'stop')


def test_the_result_of_a_tool_is_read(client):
    turns = [
        {'role': 'user', 'content': 'How is the weather in Moscow?'},
        {'role': 'assistant', 'content': None, 'tool_calls': [{'id': 'c1', 'type': 'function', 'function': {'name': 'get_weather', 'arguments': '{"city": "Moscow"}'}}]},
        {'role': 'tool', 'tool_call_id': 'c1', 'content': '{"sky": "windy", "degrees": 19}'},
    ]
    answer = client.chat.completions.create(model='tiny', messages=turns, tools=[WEATHER], max_tokens=32, temperature=0)
    assert 'windy' in answer.choices[0].message.content


def test_parts_of_text_and_developers(client):
    turns = [
        {'role': 'developer', 'content': 'You are a helpful assistant.'},
        {'role': 'user', 'content': [{'type': 'text', 'text': 'What is 12'}, {'type': 'text', 'text': ' + 30?'}]},
    ]
    system = [{'role': 'system', 'content': 'You are a helpful assistant.'}, {'role': 'user', 'content': 'What is 12 + 30?'}]
    found = [client.chat.completions.create(model='tiny', messages=m, max_tokens=8, temperature=0) for m in (turns, system)]
    assert found[0].choices[0].message.content == found[1].choices[0].message.content
    assert found[0].usage == found[1].usage
    parts = client.chat.completions.create(model='tiny', messages=turns[1:], max_tokens=8, temperature=0)
    assert parts.choices[0].message.content == '42'


def test_answers_of_a_given_form(client):
    choice = client.chat.completions.create(**say('Name a colour.'), extra_body={'guided_choice': ['red', 'blue']}).choices[0]
    assert choice.message.content in ('red', 'blue') and choice.finish_reason == 'stop'
    schema = {'type': 'object', 'properties': {'sum': {'type': 'integer', 'minimum': 0, 'maximum': 99}}, 'required': ['sum'], 'additionalProperties': False}
    form = {'type': 'json_schema', 'json_schema': {'name': 'sum', 'schema': schema, 'strict': True}}
    ask = say('What is 12 + 30?', response_format=form)
    content = client.chat.completions.create(**ask).choices[0].message.content
    assert set(json.loads(content)) == {'sum'} and 0 <= json.loads(content)['sum'] <= 99
    (said,) = put_together(client.chat.completions.create(**ask, stream=True))
    assert said['content'] == content
    text = client.completions.create(model='tiny', prompt='x', max_tokens=9, extra_body={'guided_regex': '[0-9]{4}'}).choices[0].text
    assert len(text) == 4 and text.isdigit()


@pytest.mark.parametrize('choice', ['required', {'type': 'function', 'function': {'name': 'get_weather'}}], ids=['required', 'named'])
def test_a_call_that_must_be_written(client, choice):
    other = {'type': 'function', 'function': {'name': 'get_nothing'}}
    for seed in range(3):  # a greeting is answered by no call otherwise
        ask = say('Say hello.', tools=[WEATHER, other], tool_choice=choice, temperature=1.2, seed=seed, max_tokens=300)
        whole = client.chat.completions.create(**ask).choices[0]
        (said,) = put_together(client.chat.completions.create(**ask, stream=True))
        if whole.finish_reason == 'length':  # a text within the arguments has any length
            continue
        (call,) = whole.message.tool_calls
        assert whole.finish_reason == said['reason'] == 'tool_calls' and not whole.message.content and not said['content']
        assert call.function.name in ('get_weather', 'get_nothing') and isinstance(json.loads(call.function.arguments), dict)
        assert choice == 'required' or 'city' in json.loads(call.function.arguments)
        assert [(c.function.name, c.function.arguments) for c in said['calls']] == [(call.function.name, call.function.arguments)]
    free = client.chat.completions.create(**say('Say hello.', tools=[WEATHER])).choices[0]
    assert free.message.tool_calls is None


def test_other_names_of_the_model(client):
    assert client.chat.completions.create(**{**say('What is 2 + 3?'), 'model': 'swift/tiny'}).model == 'tiny'
    assert [model.id for model in client.models.list()] == ['tiny']
    assert client.models.retrieve('tiny').owned_by == 'swift'


def test_fields_of_other_servers(client):
    extra = {'top_k': 1, 'repetition_penalty': 1.0, 'min_p': 0.0, 'stop_token_ids': [5]}
    answer = client.chat.completions.create(**{**say('What is 12 + 30?'), 'temperature': 1.0}, extra_body=extra)
    assert answer.choices[0].message.content == '42'
    every = client.chat.completions.create(**say('What is 12 + 30?', max_tokens=9), extra_body={'ignore_eos': True})
    assert every.usage.completion_tokens == 9 and every.choices[0].finish_reason == 'length'
