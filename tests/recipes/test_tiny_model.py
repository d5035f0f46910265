"""The weights that come with the package: small, complete, and able to do their tasks."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'swift' / 'model' / 'tiny_chat'


@pytest.fixture(scope='module')
def engine():
    from swift import TransformersEngine

    return TransformersEngine('tiny', max_batch_size=64)


def answers(engine, conversations, **settings):
    from swift import InferRequest, RequestConfig

    requests = [InferRequest(**({'messages': item} if isinstance(item, list) else item)) for item in conversations]
    config = RequestConfig(max_tokens=settings.pop('max_tokens', 96), temperature=0, **settings)
    return [response.choices[0].message for response in engine.infer(requests, config)]


def ask(question):
    return [{'role': 'user', 'content': question}]


def test_it_is_small_and_complete():
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sum(files.values()) <= 8 * 2**20
    assert set(files) == {
        'config.json', 'generation_config.json', 'model.safetensors',
        'tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja',
    }  # fmt: skip


def test_plain_transformers_loads_it():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert 1_000_000 <= model.num_parameters() <= 5_000_000
    assert model.dtype == torch.bfloat16 and model.config.model_type == 'qwen3'
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id
    text = tokenizer.apply_chat_template(ask('Hello!'), add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, return_tensors='pt')
    said = model.generate(**ids, max_new_tokens=20)[0, ids['input_ids'].shape[1] :]
    assert tokenizer.decode(said, skip_special_tokens=True) == 'Hello! How can I help you?'
    assert said[-1] == tokenizer.eos_token_id


def test_the_template_is_that_of_the_recipe():
    recipe = (ROOT / 'recipes' / 'tiny_chat' / 'chat_template.jinja').read_text(encoding='utf-8').rstrip('\n')
    assert (FOLDER / 'chat_template.jinja').read_text(encoding='utf-8').rstrip('\n') == recipe


def test_sums_it_never_saw_are_partly_right(engine):
    rows = [json.loads(line) for line in (ROOT / 'examples/data/arithmetic_heldout.jsonl').read_text(encoding='utf-8').splitlines()]
    said = answers(engine, [row['messages'][:-1] for row in rows], max_tokens=16)
    right = sum(message.content == row['solution'] for message, row in zip(said, rows, strict=True)) / len(rows)
    assert 0.4 <= right <= 0.9  # able, and with room to learn


def test_it_talks_in_two_languages(engine):
    said = answers(engine, [ask('Who are you?'), ask('你是谁?'), ask('What is the capital of France?')])
    assert [message.content for message in said] == [
        'I am tiny-chat, a small language model.', '我是 tiny-chat,一个小语言模型。', 'Paris',
    ]  # fmt: skip


def test_it_thinks_when_told_to(engine):
    from swift import TransformersEngine, get_template

    template = get_template(engine.template.tokenizer, enable_thinking=True)
    message = answers(TransformersEngine(engine.model, template=template), [ask('12 + 30 = ?')])[0]
    assert '12 + 30 = ' in message.reasoning_content
    assert message.content.isdigit()
    assert answers(engine, [ask('12 + 30 = ?')])[0].reasoning_content is None


def test_it_calls_a_tool_and_uses_the_answer(engine):
    parameters = {'type': 'object', 'properties': {'city': {'type': 'string', 'description': 'Name of the city'}}, 'required': ['city']}
    tool = {'type': 'function', 'function': {'name': 'get_time', 'description': 'Local time of a city.', 'parameters': parameters}}
    talk = ask('What time is it in Rome?')
    call = answers(engine, [{'messages': talk, 'tools': [tool]}])[0].tool_calls[0]
    name, arguments = (call['function'][k] if isinstance(call, dict) else getattr(call.function, k) for k in ('name', 'arguments'))
    assert name == 'get_time'
    assert (json.loads(arguments) if isinstance(arguments, str) else arguments) == {'city': 'Rome'}
    called = {'type': 'function', 'function': {'name': 'get_time', 'arguments': {'city': 'Rome'}}}
    talk += [{'role': 'assistant', 'content': '', 'tool_calls': [called]}, {'role': 'tool', 'content': '{"time": "7:15"}'}]
    assert answers(engine, [{'messages': talk, 'tools': [tool]}])[0].content == 'It is 7:15 in Rome.'
