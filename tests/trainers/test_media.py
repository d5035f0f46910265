"""Batches that show something: flat and padded, against what transformers computes from its own processor's batch."""

import pytest
import torch

from swift.core.types import IGNORE_INDEX, Batch, Media
from swift.objectives import collate
from swift.trainers import selfcheck
from swift.trainers.forward import ModelActor, Plan
from swift.trainers.media import idle, media_inputs, tower_parameters
from tests.helpers.shown import kinds_of, model_dir, root, talk, template_of
from tests.helpers.vlm import PRIORITY

FLAT = [f for f in PRIORITY if f not in ('gemma3', 'mllama', 'paligemma')]
"""Families whose segments may lie in one row."""


@pytest.fixture(scope='module', autouse=True)
def media_root(tmp_path_factory):
    return root(tmp_path_factory)


def load(family: str):
    """The family's model in plain transformers."""
    import transformers
    from transformers import AutoConfig

    name = AutoConfig.from_pretrained(model_dir(family)).architectures[0]
    return getattr(transformers, name).from_pretrained(model_dir(family), dtype=torch.float32).eval()


def samples_of(family: str) -> list:
    """Two rows with one and two media of the family's first kind, and one of text."""
    kind = kinds_of(family)[0]
    talks = [
        talk(f'<{kind}>What is this? ', 'An answer.', **{f'{kind}s': [0]}),
        talk(f'<{kind}>And<{kind}>those? ', 'Another answer of more words.', **{f'{kind}s': [1, 2]}),
        talk('How are you?', 'Fine.'),
    ]
    template = template_of(family)
    return [template.read_media(template.encode(one)[0]) for one in talks]


def by_transformers(model, family: str, sample) -> torch.Tensor:
    """[labels] log-probabilities of a sample alone, its media made into tensors by the processor and the model called plainly."""
    inputs = {'input_ids': torch.tensor([list(sample.input_ids)]), 'attention_mask': torch.ones(1, len(sample), dtype=torch.int64)}
    if sample.media:
        [media] = sample.media
        inputs.update({name: value[None] for part in (media.aligned, media.nested) for name, value in part.items()}, **media.listed)
    with torch.no_grad():
        logps = model(**inputs, use_cache=False).logits[0].log_softmax(-1)
    labels = torch.tensor(list(sample.labels))
    places = (labels != IGNORE_INDEX).nonzero()[:, 0]
    return logps[places - 1, labels[places]]


@pytest.mark.parametrize('family', PRIORITY)
@pytest.mark.parametrize('padded', [False, True])
def test_a_batch_gives_what_transformers_gives_for_each_row_alone(family, padded):
    if not padded and family not in FLAT:
        pytest.skip('runs on padded rows')
    model, samples = load(family), samples_of(family)
    wanted = torch.cat([by_transformers(model, family, sample) for sample in samples])
    plan = selfcheck.plan(model, samples, flat=not padded)
    assert plan.flat is not padded
    batch = (collate.padded if padded else collate.flat)(samples)
    with torch.no_grad():
        found = ModelActor(model, plan).answer_logps(batch).logps
    assert (found - wanted).abs().max() < 2e-5


@pytest.mark.parametrize('family', ['llava', 'qwen2_vl', 'qwen2_audio'])
def test_the_loss_sees_the_real_pixels_and_reaches_the_tower(family):
    model, samples = load(family), samples_of(family)[:1]
    plan = selfcheck.plan(model, samples)
    batch = collate.flat(samples)
    loss = -ModelActor(model, plan).answer_logps(batch).logps.sum()
    loss.backward()
    towers = [p for p in tower_parameters(model) if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(towers) > 4
    other = collate.flat(samples)
    other.media = [m.map(lambda value: value * -1 if value.is_floating_point() else value) for m in other.media]
    with torch.no_grad():
        changed = -ModelActor(model, plan).answer_logps(other).logps.sum()
    assert abs(changed.item() - loss.item()) > 1e-4


def test_joined_media_fill_up_with_zeros():
    one = Media(aligned={'kind': torch.tensor([0, 1])}, listed={'tiles': torch.ones(1, 2, 3)}, nested={'pictures': torch.ones(2, 3)})
    two = Media(aligned={'kind': torch.tensor([1, 1, 0])}, listed={'tiles': torch.ones(2, 4, 3)}, nested={'pictures': torch.ones(1, 3)})
    lengths = torch.tensor([2, 2, 3])
    flat = Batch(torch.zeros(1, 7, dtype=torch.int64), torch.zeros(1, 7), torch.zeros(1, 7), lengths, media=[one, None, two])
    made = media_inputs(flat, torch.bfloat16)
    assert made['kind'].tolist() == [[0, 1, 0, 0, 1, 1, 0]]
    assert made['tiles'].shape == (3, 4, 3) and made['tiles'][0, 2:].abs().sum() == 0 and made['tiles'].dtype == torch.bfloat16
    assert made['pictures'].shape == (1, 3, 3)
    padded = Batch(torch.zeros(3, 3, dtype=torch.int64), torch.zeros(3, 3), torch.zeros(3, 3), lengths, attention_mask=torch.ones(3, 3), media=[one, None, two])
    made = media_inputs(padded, torch.float32)
    assert made['kind'].tolist() == [[0, 1, 0], [0, 0, 0], [1, 1, 0]]
    assert made['pictures'].shape == (3, 2, 3) and made['pictures'][1].abs().sum() == 0 and made['pictures'][2, 1].abs().sum() == 0


def test_a_batch_of_texts_gives_towers_a_gradient_of_zero():
    model = load('llava')
    parameters = tower_parameters(model)
    term = idle(parameters)
    assert term.item() == 0
    term.backward()
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in parameters)
    assert not any(p.grad is not None for name, p in model.named_parameters() if 'language_model' in name)


def test_positions_of_a_flat_row_are_those_of_its_segments_alone():
    from swift.trainers.media import own_positions

    model, samples = load('qwen2_vl'), samples_of('qwen2_vl')
    positions = own_positions(model, collate.flat(samples))
    assert positions.shape == (3, 1, sum(map(len, samples)))
    start = 0
    for sample in samples:
        [alone] = [own_positions(model, collate.flat([sample]))]
        alone = collate.flat([sample]).position_ids.expand(3, 1, -1) if alone is None else alone
        assert torch.equal(positions[..., start : start + len(sample)], alone)
        start += len(sample)
    times = positions[0, 0, : len(samples[0])].tolist()
    assert len(set(times)) < len(times)  # the patches of a picture share a moment


def test_rows_that_show_images_and_rows_that_show_videos_share_a_batch():
    for family in ('glm4v', 'smolvlm', 'qwen2_5_vl', 'internvl'):
        model, template = load(family), template_of(family)
        talks = [talk('<image>What?', 'A.', images=[0]), talk('<video>And what?', 'B b.', videos=[1]), talk('Hello', 'Hi.')]
        samples = [template.read_media(template.encode(one)[0]) for one in talks]
        wanted = torch.cat([by_transformers(model, family, sample) for sample in samples])
        plan = selfcheck.plan(model, samples[:1])
        assert plan.flat
        with torch.no_grad():
            found = ModelActor(model, Plan(tail=plan.tail)).answer_logps(collate.flat(samples)).logps
        assert (found - wanted).abs().max() < 2e-5, family


@pytest.mark.parametrize(('family', 'kinds'), [
    ('qwen2_vl', ('image', 'video')), ('qwen2_5_vl', ('video', 'image')), ('llava_onevision', ('image', 'video')),
    ('qwen2_5_omni_thinker', ('image', 'audio')), ('qwen2_5_omni_thinker', ('video', 'audio', 'image')),
])  # fmt: skip
def test_a_row_that_shows_several_kinds_is_read_as_transformers_reads_it(family, kinds):
    model, template = load(family), template_of(family)
    first, *later = kinds
    turns = [f'<{first}>What? ', 'An answer.', ''.join(f'Then <{kind}>.' for kind in later), 'Another.']
    mixed = talk(*turns, **{f'{kind}s': [number] for number, kind in enumerate(kinds)})
    samples = [template.read_media(template.encode(one)[0]) for one in (mixed, talk('Hello', 'Hi.'), mixed)]
    assert [kind for kind, _ in template.encode(mixed)[0].media[0]['media']] == list(kinds)
    wanted = torch.cat([by_transformers(model, family, sample) for sample in samples])
    plan = selfcheck.plan(model, samples[:1])
    with torch.no_grad():
        found = ModelActor(model, Plan(tail=plan.tail)).answer_logps(collate.flat(samples)).logps
    assert plan.flat and (found - wanted).abs().max() < 2e-5
