"""Requests with media: bound like rows, mistakes named by message."""

import pytest

from swift.core.errors import SwiftError
from swift.core.types import Conversation
from swift.infer_engine.protocol import InferRequest

IMAGE, TEXT = {'type': 'image', 'image': 'x.png'}, {'type': 'text', 'text': 'q'}


@pytest.mark.parametrize('request_', [
    InferRequest([{'role': 'user', 'content': '<image>q'}], images=['x.png']),
    InferRequest([{'role': 'user', 'content': 'q'}], images=['x.png']),
    InferRequest([{'role': 'user', 'content': 'q'}], images='x.png'),
    InferRequest([{'role': 'user', 'content': '<image>q'}], images=[{'url': 'x.png'}]),
    InferRequest([{'role': 'user', 'content': [{'type': 'image_url', 'image_url': {'url': 'x.png'}}, 'q']}]),
])  # fmt: skip
def test_media_stand_in_the_message_once(request_):
    talk = request_.conversation()
    assert talk.messages == [{'role': 'user', 'content': [IMAGE, TEXT]}] and talk.images == ['x.png']
    again = InferRequest.of(talk)
    assert again.images == [] and again.conversation() == talk


def test_a_conversation_that_is_not_bound_keeps_its_lists():
    talk = Conversation([{'role': 'user', 'content': '<audio>q'}], audios=['x.wav'], columns={'objects': {'ref': ['a']}})
    request = InferRequest.of(talk)
    assert request.audios == ['x.wav'] and request.objects == {'ref': ['a']}
    assert request.conversation().audios == ['x.wav'] and request.conversation().columns == {'objects': {'ref': ['a']}}


def test_text_is_as_it_was():
    messages = [{'role': 'user', 'content': '<image> is a tag'}, {'role': 'assistant', 'content': None, 'tool_calls': []}]
    assert InferRequest(messages).conversation().messages == messages


@pytest.mark.parametrize(('messages', 'images', 'message'), [
    ([{'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'content': 'hi'}, {'role': 'user', 'content': '<image><image>'}], ['x'],
     r'messages\[2\]: the messages have 2 <image> tags, but images holds 1; write one <image> for each'),
    ([{'role': 'user', 'content': [{'type': 'image_url'}]}], [], r'messages\[0\]: the messages have 1 <image> tag, but images holds 0'),
    ([{'role': 'assistant', 'content': 'hi'}], ['x'], 'no <image> tag and no user message'),
    ([{'role': 'user', 'content': 3}], [], r'messages\[0\]: the content is a int; content is a text, or a list of'),
    ([{'role': 'user', 'content': ['q', 3]}], [], r'messages\[0\]: part 1 of the content is a int'),
    ([{'content': 'q'}], [], r'messages\[0\] has no role'), ([], [], 'messages must be a non-empty list'),
])  # fmt: skip
def test_mistakes_are_named_by_message(messages, images, message):
    with pytest.raises(SwiftError, match=message):
        InferRequest(messages, images=images).conversation()
