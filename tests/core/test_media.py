"""Media inside messages: tags, lists and nested parts become the one form that every door knows."""

import pytest

from swift.core.errors import RowError
from swift.core.media import bind, is_medium, media_of, reference, replaced


def user(content):
    return {'role': 'user', 'content': content}


def text(words):
    return {'type': 'text', 'text': words}


def image(ref):
    return {'type': 'image', 'image': ref}


def test_tags_take_the_media_of_their_lists_in_order():
    messages = [user('<image>What? <video> And <image>'), {'role': 'assistant', 'content': 'See <image> there.'}]
    out = bind(messages, ['a', 'b', 'c'], ['v'])
    assert out[0]['content'] == [image('a'), text('What? '), {'type': 'video', 'video': 'v'}, text(' And '), image('b')]
    assert out[1] == {'role': 'assistant', 'content': [text('See '), image('c'), text(' there.')]}
    assert media_of(out) == [('image', 'a'), ('video', 'v'), ('image', 'b'), ('image', 'c')]
    assert messages[0]['content'].startswith('<image>What')  # the row itself is left as it was


def test_messages_that_show_nothing_are_the_same_objects():
    messages = [{'role': 'system', 'content': 's'}, user('plain'), user('<image>')]
    out = bind(messages)
    assert all(new is old for new, old in zip(out, messages, strict=True))
    out = bind(messages, ['a'])
    assert out[0] is messages[0] and out[1] is messages[1] and out[2]['content'] == [image('a')]


def test_a_tag_of_a_kind_without_media_stays_text():
    assert bind([user('<image> and <audio>')], ['a'])[0]['content'] == [image('a'), text(' and <audio>')]


@pytest.mark.parametrize(
    ('content', 'media', 'words'),
    [
        ('<image><image>', (['a'],), '2 <image> tags, but images holds 1'),
        ('<image>', (['a', 'b'],), '1 <image> tag, but images holds 2'),
        ('<audio>', ([], [], ['a', 'b', 'c']), '1 <audio> tag, but audios holds 3'),
    ],
)
def test_other_numbers_of_tags_and_media_are_both_named(content, media, words):
    with pytest.raises(RowError) as caught:
        bind([user(content)], *media)
    assert words in str(caught.value) and 'write one <' in caught.value.hint


def test_a_part_that_waits_without_a_medium_is_counted_too():
    with pytest.raises(RowError, match='1 <image> tag, but images holds 0'):
        bind([user([{'type': 'image'}, text('what?')])])


def test_media_without_a_tag_stand_before_the_first_user_text(caplog):
    messages = [{'role': 'system', 'content': 's'}, user('what?'), user('and?')]
    out = bind(messages, ['a', 'b'], [], ['s'])
    kinds = [part['type'] for part in out[1]['content']]
    assert kinds == ['image', 'image', 'audio', 'text'] and out[0] is messages[0] and out[2] is messages[2]
    assert media_of(out) == [('image', 'a'), ('image', 'b'), ('audio', 's')]
    with pytest.raises(RowError, match='1 images?, but no <image> tag and no user message'):
        bind([{'role': 'assistant', 'content': 'x'}], ['a'])


def test_an_empty_user_text_is_kept_with_its_medium():
    assert bind([user('')], ['a'])[0]['content'] == [image('a'), text('')]


@pytest.mark.parametrize(
    ('part', 'kind', 'ref'),
    [
        ({'type': 'image_url', 'image_url': {'url': 'https://h/a.png'}}, 'image', 'https://h/a.png'),
        ({'type': 'image_url', 'image_url': 'a.png'}, 'image', 'a.png'),
        ({'type': 'input_image', 'image_url': 'a.png'}, 'image', 'a.png'),
        ({'type': 'image', 'url': 'a.png'}, 'image', 'a.png'),
        ({'type': 'image', 'path': 'a.png'}, 'image', 'a.png'),
        ({'type': 'image', 'image': {'bytes': b'x', 'path': None}}, 'image', b'x'),
        ({'image': 'a.png'}, 'image', 'a.png'),
        ({'type': 'video', 'video': ['1.png', '2.png']}, 'video', ['1.png', '2.png']),
        ({'type': 'video_url', 'video_url': {'url': 'a.mp4'}}, 'video', 'a.mp4'),
        ({'type': 'input_audio', 'input_audio': {'data': 'UklGR', 'format': 'wav'}}, 'audio', 'UklGR'),
        ({'type': 'audio', 'audio': {'array': [0.0], 'sampling_rate': 8000, 'path': 'x'}}, 'audio', {'array': [0.0], 'sampling_rate': 8000, 'path': 'x'}),
    ],
)
def test_nested_parts_of_every_spelling(part, kind, ref):
    assert reference(part, kind) == ref
    out = bind([user([part, {'type': 'text', 'text': 'what?'}])])
    assert out[0]['content'] == [{'type': kind, kind: ref}, text('what?')]
    assert media_of(out) == [(kind, ref)] and is_medium(out[0]['content'][0])


def test_nested_parts_wait_for_lists_and_texts_in_them_are_split():
    out = bind([user(['first', {'type': 'image'}, {'type': 'input_text', 'text': 'then <image>'}, {'text': 'end'}])], ['a', 'b'])
    assert out[0]['content'] == [text('first'), image('a'), text('then '), image('b'), text('end')]


def test_own_media_and_lists_together():
    out = bind([user([image('own'), text('<image> last')])], ['listed'])
    assert media_of(out) == [('image', 'own'), ('image', 'listed')]


def test_references_are_replaced_and_nothing_else():
    messages = bind([user('<image>see'), {'role': 'assistant', 'content': 'yes', 'loss': True}, user('<video>')], ['a'], ['v'])
    out = replaced(messages, lambda kind, ref: f'{kind}:{ref}')
    assert media_of(out) == [('image', 'image:a'), ('video', 'video:v')] and media_of(messages) == [('image', 'a'), ('video', 'v')]
    assert out[1] is messages[1] and out[0]['content'][1] == text('see')


def test_binding_twice_changes_nothing():
    once = bind([user('<image>see')], ['a'])
    assert bind(once) == once
