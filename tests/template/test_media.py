"""Rows that show something: the processor's own tokens, labels that follow them, and what is refused."""

import pytest
import torch

from swift.core.errors import RowError
from swift.core.types import IGNORE_INDEX, Conversation
from tests.helpers.shown import file_of, kinds_of, model_dir, root, talk, template_of
from tests.helpers.vlm import PRIORITY

pytestmark = pytest.mark.usefixtures('media_root')


@pytest.fixture(scope='session')
def media_root(tmp_path_factory):
    return root(tmp_path_factory)


def trained(sample, template) -> str:
    return template.tokenizer.decode([i for i, label in zip(sample.input_ids, sample.labels, strict=True) if label != IGNORE_INDEX])


def by_processor(sample, template):
    """The processor's own outputs for the text of a sample and its files."""
    from PIL import Image

    recipe = sample.media[0]
    images = [Image.open(path) for kind, path in recipe['media'] if kind == 'image']
    return template.processor(text=[recipe['text']], images=[images], add_special_tokens=False, return_tensors='pt')


def one(family: str) -> Conversation:
    kind = kinds_of(family)[0]
    return talk(f'<{kind}>What is this? ', 'An answer.', **{f'{kind}s': [0]})


@pytest.mark.parametrize('family', PRIORITY)
def test_only_the_answer_is_trained_and_the_prompt_is_the_same_as_at_inference(family):
    template = template_of(family)
    shown = one(family)
    [sample] = template.encode(shown)
    assert trained(sample, template).strip().startswith('An answer.')
    assert 'What' not in trained(sample, template)
    prompt = template.prompt(Conversation(shown.messages[:-1]))
    assert list(sample.input_ids[: len(prompt.input_ids)]) == list(prompt.input_ids)
    assert all(label == IGNORE_INDEX for label in sample.labels[: len(prompt.input_ids)])
    assert prompt.media['media'] == sample.media[0]['media'] and prompt.media['text'] == sample.media[0]['text'][: len(prompt.media['text'])]


@pytest.mark.parametrize('family', ['gemma3', 'llava', 'mllama'])
def test_plain_text_begins_for_the_processor_as_it_does_for_the_model(family):
    template = template_of(family)
    shown = talk('<image>A picture and what is said of it.', images=[0])
    shown.text = True
    [sample] = template.encode(shown)
    assert sample.input_ids[0] == template.tokenizer.bos_token_id and sample.labels[-1] == sample.input_ids[-1]
    theirs = by_processor(sample, template)
    read = theirs['input_ids'][0].tolist()
    assert read == list(sample.input_ids[: len(read)])
    [media] = template.read_media(sample).media
    for name, value in media.aligned.items():
        assert torch.equal(value[: len(read)], theirs[name][0]) and (value.any() or name != 'cross_attention_mask')


@pytest.mark.parametrize('family', [f for f in PRIORITY if 'image' in kinds_of(f) and f != 'paligemma'])
def test_ids_and_tensors_are_those_of_the_processor(family):
    template = template_of(family)
    [sample] = template.encode(talk('<image>What is this?', 'An answer.', 'And <image>that?', 'Another one.', images=[0, 1]))
    theirs = by_processor(sample, template)
    assert theirs['input_ids'][0].tolist() == list(sample.input_ids)
    [media] = template.read_media(sample).media
    ours = {name: value[None] for part in (media.aligned, media.nested) for name, value in part.items()} | media.listed
    assert set(ours) == set(theirs) - {'input_ids', 'attention_mask'}
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_a_paligemma_text_is_that_of_its_processor_and_the_answer_alone_is_its_suffix():
    template = template_of('paligemma')
    [sample] = template.encode(one('paligemma'))
    from PIL import Image

    theirs = template.processor(
        text=['<image>What is this? '], images=[Image.open(file_of('image', 0))], suffix=['An answer.'], return_tensors='pt'
    )
    assert theirs['input_ids'][0].tolist() == list(sample.input_ids)
    [media] = template.read_media(sample).media
    assert media.aligned['token_type_ids'].tolist() == theirs['token_type_ids'][0].tolist()


@pytest.mark.parametrize('family', ['qwen2_vl', 'llava', 'idefics3', 'gemma3', 'mllama'])
def test_a_picture_inside_an_answer_is_never_trained(family):
    template = template_of(family)
    reader = template.showing.reader
    [sample] = template.encode(talk('Draw two pictures. ', 'Here: <image>and there: <image>both done.', images=[0, 1]))
    said = trained(sample, template)
    assert 'Here:' in said and 'and there:' in said and 'both done.' in said
    token = template.tokenizer.convert_tokens_to_ids(reader.token('image'))
    assert token not in [label for label in sample.labels if label != IGNORE_INDEX]
    plain = template_of(family).encode(talk('Draw two pictures. ', 'Here: and there: both done.'))[0]
    assert len(trained(plain, template)) <= len(said) + 1


def test_everything_but_the_picture_is_trained_with_loss_scale_all():
    template = template_of('qwen2_vl', loss_scale='all')
    [sample] = template.encode(talk('<image>What is this?', 'An answer.', images=[0]))
    pad = template.tokenizer.convert_tokens_to_ids('<|image_pad|>')
    assert [i for i, label in zip(sample.input_ids, sample.labels, strict=True) if label == IGNORE_INDEX] == [pad] * list(sample.input_ids).count(pad)


def test_weights_stay_on_their_words_behind_pictures():
    shown = talk('<image>What is this?', 'An answer.', '<image>And that?', 'Not this one.', images=[0, 1])
    shown.messages[1]['loss'] = 0.5
    shown.messages[3]['loss'] = False
    template = template_of('qwen2_vl')
    [sample] = template.encode(shown)
    assert trained(sample, template) == 'An answer.<|im_end|>'
    assert {w for w, label in zip(sample.weights, sample.labels, strict=True) if label != IGNORE_INDEX} == {0.5}


@pytest.mark.parametrize('family', ['qwen2_vl', 'idefics3'])
@pytest.mark.parametrize('side', ['left', 'right'])
def test_truncation_leaves_pictures_whole_or_out(family, side):
    shown = talk('<image>One picture. ' + 'word ' * 20, 'A long answer, ' * 4, 'And <image>?', 'The end.', images=[0, 1])
    whole = len(template_of(family).encode(shown)[0])
    seen = set()
    for limit in range(20, whole, 3):
        template = template_of(family, max_length=limit, truncation_strategy=side)
        try:
            [sample] = template.encode(shown)
        except RowError as error:
            assert 'no trained token' in str(error)
            continue
        assert len(sample) <= limit
        shows = [path for _, path in sample.media[0]['media']] if sample.media and sample.media[0] else []
        seen.add(len(shows))
        if shows:
            assert by_processor(sample, template)['input_ids'][0].tolist() == list(sample.input_ids)
    assert len(seen) > 1


def test_delete_and_split_say_what_they_do():
    shown = talk('<image>One picture.', 'An answer.', images=[0])
    with pytest.raises(RowError, match='more than max_length 10'):
        template_of('qwen2_vl', max_length=10).encode(shown)
    with pytest.raises(RowError, match='can not be split'):
        template_of('qwen2_vl', max_length=10, truncation_strategy='split', use_chat_template=False).encode(shown)


def test_a_named_template_writes_the_models_own_placeholder():
    template = template_of('qwen2_vl', template='chatml')
    [sample] = template.encode(talk('<image>What is this?', 'An answer.', images=[0]))
    own = template_of('qwen2_vl').encode(talk('<image>What is this?', 'An answer.', images=[0]))[0]
    assert '<|vision_start|><|image_pad|><|vision_end|>What is this?' in sample.media[0]['text']
    assert list(sample.input_ids).count(template.tokenizer.convert_tokens_to_ids('<|image_pad|>')) == list(own.input_ids).count(
        template.tokenizer.convert_tokens_to_ids('<|image_pad|>')
    )


@pytest.mark.parametrize(
    ('family', 'shown', 'words'),
    [
        ('qwen2_vl', lambda: Conversation([{'role': 'user', 'content': '<image>What?'}, {'role': 'assistant', 'content': 'A'}]), '1 <image> tag, but the row has 0 images'),
        ('qwen2_vl', lambda: talk('A <|image_pad|> in the text', 'A'), 'holds <|image_pad|>'),
        ('qwen2_vl', lambda: talk('<image>A <|image_pad|> in the text', 'A', images=[0]), '2 <|image_pad|> but the row has 1 images'),
        ('qwen2_vl', lambda: talk('<audio>What?', 'A', audios=[0]), 'has audios, but the model reads images, videos'),
        ('llava', lambda: talk('<video>What?', 'A', videos=[0]), 'has videos, but the model reads images'),
        ('smolvlm', lambda: talk('<video><image>What?', 'A', videos=[0], images=[0]), 'one kind at a time'),
    ],
)
def test_rows_that_can_not_be_are_refused_in_one_line(family, shown, words):
    with pytest.raises(RowError) as caught:
        template_of(family).encode(shown())
    assert words in str(caught.value) and '\n' not in str(caught.value)


def test_a_missing_or_broken_file_is_named_with_its_row(tmp_path):
    template = template_of('llava')
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'not a picture')
    for path, words in ((str(tmp_path / 'gone.png'), 'does not exist'), (str(broken), 'is not a readable image')):
        shown = Conversation([{'role': 'user', 'content': [{'type': 'image', 'image': path}]}, {'role': 'assistant', 'content': 'A'}], source='d.jsonl:7')
        with pytest.raises(RowError) as caught:
            template.encode(shown)
        assert 'd.jsonl:7' in str(caught.value) and path in str(caught.value) and words in str(caught.value)


def test_a_text_model_refuses_pictures(tokenizer):
    from swift.template import get_template

    with pytest.raises(RowError, match='reads text only'):
        get_template(tokenizer).encode(talk('<image>What?', 'A', images=[0]))


def test_lengths_come_from_headers_alone(monkeypatch):
    from swift.media import image

    monkeypatch.setattr(image, 'load_image', None)  # whoever decodes fails
    template = template_of('qwen2_vl', max_length=4000)
    [sample] = template.encode(talk('<image>What is this?', 'An answer.', images=[2]))
    assert sample.media[0]['media'] == [['image', file_of('image', 2)]]


@pytest.mark.parametrize('family', ['qwen2_vl', 'qwen3_vl', 'glm4v'])
def test_the_budget_lowers_the_number_of_tokens(family):
    shown = talk('<image>What is this?', 'An answer.', images=[2])
    whole = len(template_of(family).encode(shown)[0])
    small = template_of(family, max_pixels=28 * 28)
    [sample] = small.encode(shown)
    assert len(sample) < whole
    assert small.read_media(sample).media[0] is not None


def test_a_budget_in_tokens_counts_patches():
    template = template_of('qwen2_vl', image_max_token_num=4, image_min_token_num=1)
    pad = template.tokenizer.convert_tokens_to_ids('<|image_pad|>')
    [sample] = template.encode(talk('<image>What is this?', 'An answer.', images=[1]))
    assert 1 <= list(sample.input_ids).count(pad) <= 4


@pytest.mark.parametrize(('family', 'kind', 'flag'), [('qwen2_vl', 'video', 'video_max_token_num'), ('qwen2_audio', 'audio', 'audio_max_token_num')])
def test_budgets_in_tokens_of_videos_and_sounds(family, kind, flag):
    shown = talk(f'<{kind}>What is this?', 'An answer.', **{f'{kind}s': [1]})

    def count(most=None):
        template = template_of(family, **({flag: most} if most else {}))
        [sample] = template.encode(shown)
        assert template.read_media(sample).media[0] is not None  # what is read is as long as what was counted
        return list(sample.input_ids).count(template.tokenizer.convert_tokens_to_ids(template.showing.reader.token(kind)))

    whole = count()
    few = max(1, whole // 4)
    frames = {'video': 8, 'audio': 1}[kind]  # a budget of videos is one of a frame
    assert count(few) < whole and count(few) <= few * frames


def test_models_of_fixed_size_say_that_a_budget_in_tokens_is_none():
    from swift.core.errors import TemplateError

    with pytest.raises(TemplateError, match='image_max_token_num'):
        template_of('llava', image_max_token_num=4)


def test_a_fingerprint_holds_processor_and_budget():
    prints = {template_of('qwen2_vl').fingerprint, template_of('qwen2_vl', max_pixels=3136).fingerprint, template_of('llava').fingerprint}
    assert len(prints) == 3
    assert model_dir('llava') != model_dir('qwen2_vl')


@pytest.mark.parametrize('family', [f for f in PRIORITY if 'image' in kinds_of(f)])
def test_counting_tokens_gives_what_trying_gives(family):
    reader = template_of(family).showing.reader
    sizes = [('image', size) for size in ((57, 211), (300, 300), (33, 900), (720, 1280))]
    for some in (sizes[:1], sizes[1:2], sizes[2:3], sizes[3:], sizes[:2]):
        assert reader._written_for(tuple(some)) == reader._tried(tuple(some))
    assert reader._counter.works is (family not in ('idefics3', 'smolvlm', 'mistral3', 'mllama', 'llava_onevision'))


def test_a_file_that_changed_is_told_from_the_one_that_was_encoded(tmp_path):
    import shutil

    path = tmp_path / 'picture.png'
    shutil.copy(file_of('image', 0), path)
    template = template_of('qwen2_vl')
    said = [{'type': 'image', 'image': str(path)}, {'type': 'text', 'text': 'What?'}]
    [sample] = template.encode(Conversation([{'role': 'user', 'content': said}, {'role': 'assistant', 'content': 'A'}]))
    shutil.copy(file_of('image', 2), path)
    with pytest.raises(RowError, match='picture.png changed since its row was encoded'):
        template.read_media(sample)


def test_a_processor_that_puts_media_where_it_likes_is_said_so(tmp_path):
    """Idefics writes its tokens behind a text that has no place for them."""
    from transformers import AutoProcessor

    from swift.template import get_template
    from tests.helpers.vlm import save_vlm

    template = get_template(AutoProcessor.from_pretrained(save_vlm(tmp_path / 'idefics', 'idefics')), use_chat_template=False)
    [sample] = template.encode(talk('<image>What is this?', 'An answer.', images=[0]))
    with pytest.raises(RowError, match='IdeficsProcessor writes tokens for it where it likes'):
        template.read_media(sample)
