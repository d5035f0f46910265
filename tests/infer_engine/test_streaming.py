"""A stream put together again is the answer; it never shows half a character or half a stop text."""

import re
import subprocess
import sys

import pytest

from swift.core.types import Completion, Prompt
from swift.infer_engine import InferRequest, RequestConfig
from swift.infer_engine.base import to_message
from swift.infer_engine.row import Chunk
from swift.infer_engine.streaming import DeltaParser, as_said
from swift.infer_engine.text import TextStream, decode, held

TEXT = 'Hello 世界, 你好 🎉 ok! <|im_start|> ünïcode – the quick brown fox.'


def pieces_of(tokenizer, text, stops=()):
    stream = TextStream(tokenizer, stops)
    pieces = []
    for token in tokenizer.encode(text, add_special_tokens=False):
        if stream.feed(token):
            break
        pieces.append(stream.take())
    return [*pieces, stream.finish()], stream


def test_pieces_are_whole_characters_and_add_up(tokenizer):
    pieces, stream = pieces_of(tokenizer, TEXT)
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert len(ids) > len([p for p in pieces if p]) > 20  # some characters take several tokens
    assert not any('\ufffd' in piece for piece in pieces)
    assert ''.join(pieces) == stream.text == decode(tokenizer, ids)


@pytest.mark.parametrize('stop', ['quick', ' fox', '你好', '🎉 ok', 'e', 'ünïcode – the q'])
def test_no_piece_of_a_stop_text_is_shown(tokenizer, stop):
    pieces, stream = pieces_of(tokenizer, TEXT, (stop, 'never there'))
    wanted = decode(tokenizer, tokenizer.encode(TEXT, add_special_tokens=False)).split(stop)[0]
    assert stream.stopped
    assert stream.text == ''.join(pieces) == wanted
    shown = ''
    for piece in pieces:
        shown += piece
        assert wanted.startswith(shown)


def test_what_looks_like_a_stop_text_and_is_none_is_shown_in_the_end(tokenizer):
    pieces, stream = pieces_of(tokenizer, 'the quick brown', ('brownie', 'quickly'))
    assert ''.join(pieces) == 'the quick brown'
    assert not stream.stopped
    assert held('the quick brown', ('brownie', 'own!')) == 5


def ask(text):
    return InferRequest([{'role': 'user', 'content': text}])


def test_streams_are_the_answers(engine):
    requests = [ask(text) for text in ('Hello', 'What is 12 + 30?', '你好,世界', 'x')]
    for settings in ({'temperature': 0}, {'temperature': 1.4, 'seed': 5, 'n': 2}, {'temperature': 0, 'logprobs': True, 'top_logprobs': 2}):
        whole = engine.infer(requests, RequestConfig(max_tokens=30, **settings))
        streams = engine.infer(requests, RequestConfig(max_tokens=30, stream=True, **settings))
        for answer, stream in zip(whole, streams, strict=True):
            pieces = list(stream)
            assert len({piece.id for piece in pieces}) == 1
            assert [p.usage for p in pieces if p.usage] == [answer.usage]
            for choice in answer.choices:
                mine = [c for p in pieces for c in p.choices if c.index == choice.index]
                assert mine[0].delta.role == 'assistant'
                assert ''.join(c.delta.content or '' for c in mine) == choice.message.content
                assert [c.finish_reason for c in mine if c.finish_reason] == [choice.finish_reason]
                if 'logprobs' in settings:
                    told = [e for c in mine if c.logprobs for e in c.logprobs['content']]
                    known = choice.logprobs['content']
                    assert [e['token_id'] for e in told] == [e['token_id'] for e in known]
                    assert [e['logprob'] for e in told] == pytest.approx([e['logprob'] for e in known], abs=1e-5)
                    assert all(len(e['top_logprobs']) == 2 for e in told)


def test_streams_run_at_once_and_come_as_they_grow(engine):
    streams = engine.infer([ask('Hello'), ask('x')], RequestConfig(max_tokens=40, ignore_eos=True, temperature=1.5, seed=1, stream=True))
    assert min(len(list(stream)) for stream in streams) > 10


def test_a_stop_text_that_is_the_last_token_is_not_read_by_the_template(tokenizer):
    ids = tokenizer.encode('1 2 3', add_special_tokens=False)
    text = decode(tokenizer, ids[:-1])
    assert as_said(Completion(ids, text, 'stop', None, 1), tokenizer).token_ids == ids[:-1]
    ended = [*ids[:-1], tokenizer.eos_token_id]  # the template knows how its turns end
    assert as_said(Completion(ended, text, 'stop', None, 1), tokenizer).token_ids == ended
    assert as_said(Completion(ids, text[:-1], 'stop', None, 1), tokenizer).token_ids == []
    assert as_said(Completion(ids, decode(tokenizer, ids), 'stop', None, 1), tokenizer).token_ids == ids


def test_a_stop_text_ends_the_answer_before_itself(engine):
    base = dict(max_tokens=30, temperature=1.5, ignore_eos=False, return_details=True)
    for seed in range(50):
        base['seed'] = seed
        whole = engine.infer([ask('Hello')], RequestConfig(**base))[0].choices[0]
        text = whole.message.content
        words = [word for word in re.findall('[^\ufffd]{3,}', text[4:]) if text.index(word) >= 4]
        if words:
            break
    stop = words[0][:3]
    cut = engine.infer([ask('Hello')], RequestConfig(stop=stop, **base))[0].choices[0]
    assert (cut.message.content, cut.finish_reason) == (text[: text.index(stop)], 'stop')
    assert len(cut.token_ids) < len(whole.token_ids)
    stream = engine.infer([ask('Hello')], RequestConfig(stop=[stop], stream=True, **base))[0]
    assert ''.join(p.choices[0].delta.content or '' for p in stream) == cut.message.content
    token = whole.token_ids[5]
    ended = engine.infer([ask('Hello')], RequestConfig(stop_token_ids=[token], **base))[0].choices[0]
    assert ended.finish_reason == 'stop'
    assert ended.token_ids == whole.token_ids[: whole.token_ids.index(token) + 1]


def test_a_special_token_as_stop_text(engine, model, template):
    prompt = template.prompt(ask('Hello').conversation())
    assert 1 in engine.settings(prompt, RequestConfig(stop='<|im_start|>')).stop_ids


def test_leaving_a_stream_ends_the_answer(engine):
    stream = engine.infer([ask('Hello')], RequestConfig(max_tokens=3000, ignore_eos=True, temperature=0, stream=True))[0]
    next(stream)
    stream.close()
    assert engine._worker._open == 0


def test_a_failing_stream_raises(engine, model):
    def broken(*_):
        raise RuntimeError('out of memory')

    handle = model.lm_head.register_forward_pre_hook(broken)
    try:
        stream = engine.infer([ask('Hello')], RequestConfig(max_tokens=3, stream=True))[0]
        with pytest.raises(RuntimeError, match='out of memory'):
            list(stream)
    finally:
        handle.remove()


class Thinking:
    """Stands for a template that knows thoughts and calls."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def decode(self, completion):
        text, reasoning, calls = completion.text, '', []
        if text.startswith('<think>'):
            reasoning, _, text = text[len('<think>') :].partition('</think>')
        if '<tool_call>' in text:
            text, _, call = text.partition('<tool_call>')
            calls = [{'function': {'name': call.split('<')[0], 'arguments': {'a': 1}}}]
        message = {'role': 'assistant', 'content': text.strip(), 'reasoning_content': reasoning.strip()}
        return {**message, 'tool_calls': calls} if calls else message


@pytest.mark.parametrize('size', [1, 2, 3, 7, 100])
def test_thoughts_and_calls_are_kept_apart_while_they_come(tokenizer, size):
    text = '<think>\nHm, 2 < 3.\n</think>\n\nI look <that> up.\n<tool_call>add</tool_call>'
    template = Thinking(tokenizer)
    wanted = to_message(template.decode(Completion([], text, 'stop')))
    parser = DeltaParser(template, Prompt([1], ''), (), to_message)
    choices = []
    for start in range(0, len(text), size):
        choices += parser.feed(Chunk(0, text[start : start + size]))
    choices += parser.feed(Chunk(0, '', completion=Completion([], text, 'stop')))
    assert ''.join(c.delta.reasoning_content or '' for c in choices) == wanted.reasoning_content == 'Hm, 2 < 3.'
    assert ''.join(c.delta.content or '' for c in choices) == wanted.content == 'I look <that> up.'
    assert choices[-1].finish_reason == 'tool_calls'
    assert choices[-1].delta.tool_calls[0]['function'] == {'name': 'add', 'arguments': '{"a": 1}'}
    assert [c.delta.tool_calls for c in choices[:-1]] == [None] * (len(choices) - 1)


def test_a_process_may_end_while_an_answer_is_written(tmp_path):
    """The engine's thread is in the middle of a step; killed there, it would take the process down with a signal."""
    script = tmp_path / 'leaves.py'
    script.write_text(
        'from swift import InferRequest, RequestConfig, TransformersEngine\n'
        "talk = InferRequest([{'role': 'user', 'content': 'Who are you?'}])\n"
        "[stream] = TransformersEngine('tiny').infer([talk], RequestConfig(max_tokens=1000, ignore_eos=True, stream=True))\n"
        'print(next(stream).choices[0].delta.role)\n'
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, '-W', 'ignore', str(script)], capture_output=True, text=True, timeout=100)
        assert (done.returncode, done.stdout) == (0, 'assistant\n'), done.stderr[-500:]
