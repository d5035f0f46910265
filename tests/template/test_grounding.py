"""Boxes as the families write them; the numbers are worked out by hand.

The image is 200 wide and 100 high; the model gets it 56 wide and 28 high. The box (20, 30) – (100, 75) covers the shares
0.1 – 0.5 of the width and 0.3 – 0.75 of the height.
"""

import pytest

from swift.core.errors import RowError, TemplateError
from swift.template.grounding import convention_of, ground

SIZES = [((100, 200), (28, 56))]
BOX, POINT = [20, 30, 100, 75], [50, 50]


def say(text, role='assistant'):
    return [{'role': 'user', 'content': 'Where?'}, {'role': role, 'content': text}]


def written(model_type, text, objects, sizes=SIZES, norm=None):
    return ground(say(text), objects, sizes, convention_of(model_type, norm))[-1]['content']


@pytest.mark.parametrize(('model_type', 'expected'), [
    ('qwen2_vl', '<|object_ref_start|>a dog<|object_ref_end|> at <|box_start|>(100,300),(500,750)<|box_end|>'),
    ('qwen2_5_vl', 'a dog at [6, 8, 28, 21]'),  # 0.1·56=5.6, 0.3·28=8.4, 0.5·56=28, 0.75·28=21
    ('qwen3_vl', 'a dog at [100, 300, 500, 750]'),
    ('internvl', '<ref>a dog</ref> at <box>[[100, 300, 500, 750]]</box>'),
    ('glm4v', 'a dog at <|begin_of_box|>[[100,300,500,750]]<|end_of_box|>'),
    ('paligemma', 'a dog at <loc0307><loc0102><loc0768><loc0512>'),  # 0.3·1024=307.2, 0.1·1024=102.4, 768, 512
    ('kosmos-2', '<phrase>a dog</phrase> at <object><patch_index_0291><patch_index_0751></object>'),  # 9·32+3, 23·32+15
    ('gemma3', 'a dog at [100, 300, 500, 750]'),
    (None, 'a dog at [100, 300, 500, 750]'),
])  # fmt: skip
def test_a_named_box(model_type, expected):
    assert written(model_type, '<ref-object> at <bbox>', {'ref': ['a dog'], 'bbox': [BOX]}) == expected


@pytest.mark.parametrize(('model_type', 'expected'), [
    ('qwen2_vl', 'click <|box_start|>(250,500)<|box_end|>'), ('qwen2_5_vl', 'click [14, 14]'), ('qwen3_vl', 'click [250, 500]'),
    ('internvl', 'click <box>[[250, 500]]</box>'), ('paligemma', 'click <loc0512><loc0256>'),
])  # fmt: skip
def test_a_point_without_a_name(model_type, expected):
    assert written(model_type, 'click <bbox>', {'ref': [], 'bbox': [POINT]}) == expected


@pytest.mark.parametrize('objects', [{'bbox': [BOX, [0, 0, 200, 100]]}, {'bbox': [[BOX, [0, 0, 200, 100]]]}])
@pytest.mark.parametrize(('model_type', 'expected'), [
    ('internvl', '<box>[[100, 300, 500, 750], [0, 0, 1000, 1000]]</box>'),
    ('qwen2_vl', '<|box_start|>(100,300),(500,750)<|box_end|><|box_start|>(0,0),(1000,1000)<|box_end|>'),
    ('paligemma', '<loc0307><loc0102><loc0768><loc0512><loc0000><loc0000><loc1023><loc1023>'),
    ('kosmos-2', '<object><patch_index_0291><patch_index_0751></delimiter_of_multi_objects/>'
                 '<patch_index_0000><patch_index_1023></object>'),
])  # fmt: skip
def test_several_boxes_of_one_object_stand_together(model_type, expected, objects):
    assert written(model_type, '<bbox>' * len(objects['bbox']), objects) == expected


@pytest.mark.parametrize('objects', [
    {'bbox': [BOX]}, {'bbox': [BOX], 'bbox_type': 'real', 'image_id': [0]}, {'bbox': [[0.1, 0.3, 0.5, 0.75]], 'bbox_type': 'norm1'},
    {'bbox': [[100, 300, 500, 750]], 'bbox_type': 'norm1000'}, '{"bbox": [[20, 30, 100, 75]]}',
    {'ref': None, 'bbox': [BOX], 'bbox_type': None, 'image_id': None},
])  # fmt: skip
def test_every_kind_of_coordinates(objects):
    assert written('qwen3_vl', '<bbox>', objects) == '[100, 300, 500, 750]'
    assert written('qwen2_5_vl', '<bbox>', objects) == '[6, 8, 28, 21]'


def test_norm_bbox_says_other_units():
    assert written('qwen2_5_vl', '<bbox>', {'bbox': [BOX]}, norm='norm1000') == '[100, 300, 500, 750]'
    assert written('qwen2_vl', '<bbox>', {'bbox': [BOX]}, norm='none') == '<|box_start|>(6,8),(28,21)<|box_end|>'
    with pytest.raises(TemplateError, match='paligemma writes boxes as tokens of its own'):
        convention_of('paligemma', 'none')
    with pytest.raises(TemplateError, match="unknown norm_bbox 'norm1'"):
        convention_of('qwen2_vl', 'norm1')


def test_each_box_is_measured_in_its_own_image():
    sizes = [*SIZES, ((1000, 500), (10, 5))]
    objects = {'bbox': [[20, 30], [250, 250]], 'image_id': [0, 1]}
    assert written('qwen3_vl', '<bbox> and <bbox>', objects, sizes) == '[100, 300] and [500, 250]'
    with pytest.raises(RowError, match=r'box 1 is in image 2, but the row has 2 images'):
        written('qwen3_vl', '<bbox> and <bbox>', {**objects, 'image_id': [0, 2]}, sizes)
    with pytest.raises(RowError, match=r'objects.image_id holds 1, but objects.bbox 2'):
        written('qwen3_vl', '<bbox> and <bbox>', {**objects, 'image_id': [0]}, sizes)


def test_tags_take_objects_in_order_over_all_messages_and_parts():
    image = {'type': 'image', 'image': 'a.png'}
    messages = [
        {'role': 'user', 'content': [image, {'type': 'text', 'text': 'Find <ref-object>.'}]},
        {'role': 'assistant', 'content': '<bbox>'},
        {'role': 'user', 'content': 'And <ref-object>?'},
        {'role': 'assistant', 'content': 'Here: <bbox>, beside <ref-object>', 'loss': True},
    ]
    objects = {'ref': ['sheep', 'a cow', 'the gate'], 'bbox': [BOX, POINT]}
    made = ground(messages, objects, SIZES, convention_of('qwen3_vl'))
    assert made[0]['content'] == [image, {'type': 'text', 'text': 'Find sheep.'}]
    assert [message['content'] for message in made[1:]] == ['[100, 300, 500, 750]', 'And a cow?', 'Here: [250, 500], beside the gate']
    assert made[3]['loss'] is True and messages[1]['content'] == '<bbox>'


def test_without_objects_or_tags_nothing_changes():
    messages = say('<bbox> is a tag')
    assert ground(messages, None, SIZES, convention_of(None)) == messages == ground(messages, '', [], convention_of(None))
    assert ground(messages, {}, SIZES, convention_of(None))[0] is messages[0]


def test_a_prompt_need_not_use_all_objects():
    messages = [{'role': 'user', 'content': 'Find <ref-object>.'}]
    objects = {'ref': ['sheep'], 'bbox': [BOX]}
    assert ground(messages, objects, SIZES, convention_of(None)) == [{'role': 'user', 'content': 'Find sheep.'}]
    with pytest.raises(RowError, match='have 1 <ref-object> tag, but objects.ref holds 0'):
        ground(messages, {'bbox': [BOX]}, SIZES, convention_of(None))


@pytest.mark.parametrize(('text', 'objects', 'message'), [
    ('<bbox>', {'bbox': [BOX, BOX]}, 'the messages have 1 <bbox> tag, but objects.bbox holds 2; write one <bbox> for each'),
    ('<bbox><bbox>', {'bbox': [BOX]}, 'the messages have 2 <bbox> tags, but objects.bbox holds 1'),
    ('none', {'ref': ['a'], 'bbox': []}, 'the messages have 0 <ref-object> tags, but objects.ref holds 1'),
    ('<bbox>', {'bbox': [[1, 2, 3]]}, r'box 0 must be \[x1, y1, x2, y2\] or a point \[x, y\], got \[1, 2, 3\]'),
    ('<bbox>', {'bbox': ['20']}, 'box 0 must be'), ('<bbox>', {'bbox': [[1, 2, 3, float('nan')]]}, 'box 0 must be'),
    ('<bbox>', {'bbox': [[20, 30, 300, 75]]}, r'box 0 \[20, 30, 300, 75\] lies outside the image \(200 wide, 100 high as real\)'),
    ('<bbox>', {'bbox': [BOX], 'bbox_type': 'norm1'}, r'box 0 .* lies outside the image \(1 wide, 1 high as norm1\)'),
    ('<bbox>', {'bbox': [BOX], 'bbox_type': 'relative'}, "unknown bbox_type 'relative'; known: real, norm1000, norm1"),
    ('<bbox>', '{"bbox": ', 'objects is a string that is not JSON'),
])  # fmt: skip
def test_what_cannot_be(text, objects, message):
    with pytest.raises(RowError, match=message):
        written('qwen3_vl', text, objects)


def test_a_box_a_little_over_the_edge_is_cut():
    assert written('qwen3_vl', '<bbox>', {'bbox': [[-2, 0, 204, 101]]}) == '[0, 0, 1000, 1000]'
    assert written('kosmos-2', '<bbox>', {'bbox': [[0, 0, 200, 100]]}) == '<object><patch_index_0000><patch_index_1023></object>'


def test_a_row_without_images_has_relative_boxes_only():
    assert written('qwen3_vl', '<bbox>', {'bbox': [POINT], 'bbox_type': 'norm1000'}, []) == '[50, 50]'
    with pytest.raises(RowError, match='bbox_type real needs an image'):
        written('qwen3_vl', '<bbox>', {'bbox': [POINT]}, [])
    with pytest.raises(RowError, match='in pixels, which needs an image'):
        written('qwen2_5_vl', '<bbox>', {'bbox': [[0.5, 0.5]], 'bbox_type': 'norm1'}, [])


def test_a_family_without_points_says_so():
    with pytest.raises(RowError, match='box 0 is a point, which this model has no way to write'):
        written('kosmos-2', '<bbox>', {'bbox': [POINT]})
