"""What the page talks to: adapters by name, thoughts apart, defaults from flags and model."""

from contextlib import closing

import pytest

from swift.arguments import parse_args
from swift.core.errors import SwiftError
from swift.pipelines.app import Talk
from tests.helpers.fake_openai import fake_server


def last(answers):
    *_, answer = answers
    return answer


@pytest.fixture(scope='module')
def adapter(tiny_dir, tmp_path_factory):
    """A LoRA whose answers differ from its model's."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_dir), LoraConfig(r=4, target_modules=['q_proj', 'v_proj', 'o_proj']))
    for name, weight in model.named_parameters():
        if 'lora_' in name:
            torch.nn.init.normal_(weight, std=0.5)
    folder = tmp_path_factory.mktemp('adapter')
    model.save_pretrained(folder)
    return str(folder)


def test_adapters_by_name(tiny_dir, adapter):
    talk = Talk(parse_args('app', ['--model', tiny_dir, '--adapters', f'mine={adapter}', '--temperature', '0', '--max_new_tokens', '12']))
    assert talk.choices == ['', 'mine'] and talk.kinds == ()
    assert talk.defaults['temperature'] == 0 and talk.defaults['max_tokens'] == 12 and talk.defaults['seed'] is None
    question, settings = [{'role': 'user', 'content': 'hello'}], {'max_tokens': 12, 'temperature': 0.0}
    base, mine, again = (last(talk.ask(question, choice, settings)) for choice in ('', 'mine', ''))
    assert base.message == again.message != mine.message
    assert base.tokens >= 1 and base.reason in ('stop', 'length')
    from swift.pipelines.infer import build_engine

    engine = build_engine(parse_args('infer', ['--model', tiny_dir, '--adapters', adapter]))
    from swift.infer_engine import RequestConfig

    alone = engine.infer([{'messages': question}], RequestConfig(max_tokens=12, temperature=0))[0]
    assert alone.choices[0].message.content == mine.message['content']


def test_closing_the_answer_stops_it(tiny_dir):
    talk = Talk(parse_args('app', ['--model', tiny_dir]))
    with closing(talk.ask([{'role': 'user', 'content': 'hello'}], None, {'max_tokens': 400, 'temperature': 1.0})) as answers:
        first = next(answers)
    assert first.reason == 'abort' and talk.engine._worker._open == 0


def test_unnamed_adapters_and_uploads_that_make_no_sense(tiny_dir, adapter):
    with pytest.raises(SwiftError, match='has no name; write name=path'):
        parse_args('app', ['--model', tiny_dir, '--adapters', adapter, adapter])
    with pytest.raises(SwiftError, match='--is_multimodal: .* reads text only'):
        Talk(parse_args('app', ['--model', tiny_dir, '--is_multimodal', 'true']))


def test_thoughts_that_a_server_leaves_in_the_text():
    with fake_server() as server:
        talk = Talk(parse_args('app', ['--base_url', server.url, '--system', 'S']))
        assert talk.choices == ['fake', 'fake-lora'] and talk.name == 'fake' and talk.system == 'S'
        from swift.pipelines.app import _message

        assert _message('<think>\nhm', '', None) == {'role': 'assistant', 'content': '', 'reasoning_content': 'hm'}
        assert _message('<think>hm</think>\n\nyes', '', None) == {'role': 'assistant', 'content': 'yes', 'reasoning_content': 'hm'}
        assert _message('a <think> b', '', None) == {'role': 'assistant', 'content': 'a <think> b'}
        with pytest.raises(SwiftError, match='x.txt is no image or video or audio file'):
            Talk(parse_args('app', ['--base_url', server.url, '--is_multimodal', 'true'])).read('look', ['x.txt'])
