"""Methods on rows that show pictures: against plain transformers forwards of each answer, against TRL, and which picture goes where."""

import functools

import pytest
import torch
from PIL import Image
from torch.nn.functional import logsigmoid

from swift.core.errors import RowError
from swift.core.types import IGNORE_INDEX, Actors
from swift.dataset.convert import AutoPreprocessor
from swift.objectives import get_objective
from swift.template import get_template
from swift.trainers import selfcheck
from swift.trainers.forward import ModelActor
from tests.helpers.bench import _moved
from tests.helpers.mm_matrix import shower
from tests.helpers.vlm import save_vlm
from tests.objectives.trl.ours import objective, run

EDGES = {'llava': (' ', '</s>'), 'qwen2_vl': ('', '<|im_end|>'), 'mllama': ('', '<|eot_id|>')}
"""What stands before an answer and behind it."""
ASKED = 'What colour is it?'


@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SWIFT_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='module')
def show(tmp_path_factory):
    return shower(tmp_path_factory.mktemp('media'), 'image')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Family → (policy, reference, processor), in plain transformers."""
    folder = tmp_path_factory.mktemp('vlm')

    @functools.cache
    def make(family):
        from transformers import AutoModelForImageTextToText, AutoProcessor

        path = save_vlm(folder / family, family)
        reference = AutoModelForImageTextToText.from_pretrained(path).eval()
        return _moved(reference, 0.05), reference, AutoProcessor.from_pretrained(path)

    return make


def talk(image, chosen, rejected=None, **more):
    row = {'query': f'<image>{ASKED}', 'response': chosen, 'images': [image], **more}
    return AutoPreprocessor()(row if rejected is None else {**row, 'rejected_response': rejected})


def said(family, answer):
    return answer.join(EDGES[family])


def asked(processor):
    """The prompt as plain transformers renders it."""
    content = [{'type': 'image'}, {'type': 'text', 'text': ASKED}]
    return processor.apply_chat_template([{'role': 'user', 'content': content}], add_generation_prompt=True)


def answer_logp(model, processor, image, answer, grad=True):
    """log p(answer and its end | prompt with the picture) by the model's own forward on what its own processor makes."""
    def inputs(text):
        return processor(text=[text], images=[[Image.open(image).convert('RGB')]], return_tensors='pt', add_special_tokens=False)

    whole, start = inputs(asked(processor) + answer), inputs(asked(processor))['input_ids'].shape[1]
    with torch.set_grad_enabled(grad):
        logits = model(**whole).logits[0, start - 1 : -1]
        return torch.log_softmax(logits.float(), -1).gather(1, whole['input_ids'][0, start:, None]).sum()


def samples_of(method, talks, template):
    found = [sample for result in method.encode_batch(talks, template) for sample in result]
    return [template.read_media(sample) for sample in found]


def ours(policy, reference, samples, flat=True):
    """Actors around copies, so that plain forwards of the models stay what they are."""
    import copy

    models = [copy.deepcopy(model) for model in (policy, reference)]
    plans = [selfcheck.plan(model, samples, flat=flat) for model in models]
    return Actors(*(ModelActor(model, plan) for model, plan in zip(models, plans, strict=True))), plans[0]


@pytest.mark.parametrize('family', ['llava', 'qwen2_vl'])
@pytest.mark.parametrize('own', [False, True], ids=['shared', 'own-picture'])
def test_dpo_of_one_pair_is_what_four_plain_forwards_give(made, show, family, own):
    policy, reference, processor = made(family)
    row = talk(show(0), 'It is red.', 'It is as blue as the sky.', **({'rejected_images': [show(1)]} if own else {}))
    answers = [(show(0), said(family, 'It is red.')), (show(1 if own else 0), said(family, 'It is as blue as the sky.'))]
    (chosen, rejected), (chosen_ref, rejected_ref) = (
        [answer_logp(model, processor, *answer) for answer in answers] for model in (policy, reference)
    )
    wanted = -logsigmoid(0.1 * (chosen - chosen_ref - rejected + rejected_ref))
    policy.zero_grad()
    wanted.backward()
    norm = torch.cat([weight.grad.reshape(-1) for weight in policy.parameters() if weight.grad is not None]).double().norm()

    method, template = objective('dpo', beta=0.1), get_template(processor)
    samples = samples_of(method, [row], template)
    who, plan = ours(policy, reference, samples)
    found = run(method, [samples], padded=not plan.flat, who=who)
    assert found['loss'] == pytest.approx(wanted.item(), rel=1e-5)
    assert found['grad_norm'] == pytest.approx(norm.item(), rel=1e-4)
    assert found['metrics']['logps/chosen'].item() == pytest.approx(chosen.item(), rel=1e-5)
    assert found['metrics']['logps/rejected'].item() == pytest.approx(rejected.item(), rel=1e-5)


def test_the_loss_is_of_the_pixels(made, show, tmp_path):
    policy, reference, processor = made('llava')
    method, template = objective('dpo'), get_template(processor)
    copy = tmp_path / 'copy.png'
    Image.open(show(0)).save(copy)
    losses = []
    for path in (show(0), str(copy), show(3)):  # picture 3 has the shape of picture 0
        samples = samples_of(method, [talk(path, 'red', 'blue')], template)
        losses.append(run(method, [samples], who=ours(policy, reference, samples)[0])['loss'])
    assert losses[0] == losses[1] and abs(losses[0] - losses[2]) > 1e-4


def test_both_answers_see_the_picture_of_the_row_or_their_own(made, show):
    _, _, processor = made('llava')
    method, template = objective('dpo'), get_template(processor)
    (same,), (own,), (text,) = method.encode_batch(
        [
            talk(show(0), 'red', 'blue'), talk(show(0), 'red', 'blue', rejected_images=[show(1)]),
            AutoPreprocessor()({'query': 'a', 'response': 'b', 'rejected_response': 'c'}),
        ], template,
    )  # fmt: skip
    media = [[shown['media'] for shown in sample.media] for sample in (same, own)]
    assert media == [[[['image', show(0)]]] * 2, [[['image', show(0)]], [['image', show(1)]]]] and text.media is None
    batch = method.collate([template.read_media(sample) for sample in (same, text, own)])
    pixels = [shown and shown.listed['pixel_values'] for shown in batch.media]
    assert torch.equal(pixels[0], pixels[1]) and pixels[2:4] == [None, None]
    assert torch.equal(pixels[4], pixels[0]) and not torch.equal(pixels[5], pixels[0])


@pytest.mark.parametrize('family', ['llava', 'qwen2_vl', 'mllama'])
def test_a_mismatched_answer_of_kto_follows_the_prompt_and_the_picture_of_its_row(made, show, family):
    policy, reference, processor = made(family)
    method, template = objective('kto'), get_template(processor)
    answers = ['It is red.', 'It is blue, I think, as far as I can see.']
    talks = [talk(show(number), answer, label=bool(number)) for number, answer in enumerate(answers)]
    samples = samples_of(method, talks, template)
    who, plan = ours(policy, reference, samples)
    assert plan.flat == (family != 'mllama')
    batch = method.collate(samples, padded=not plan.flat).extra['mismatched']
    tokens = who.policy.answer_logps(batch)
    found = torch.zeros(2).index_add_(0, tokens.segment, tokens.logps)
    for number in (0, 1):
        wanted = answer_logp(policy, processor, show(number), said(family, answers[1 - number]), grad=False)
        assert found[number].item() == pytest.approx(wanted.item(), rel=1e-4)
    for sample in samples:
        for shown, length in zip(sample.media, sample.segment_lengths, strict=True):
            for name, value in shown.aligned.items():
                assert len(value) == length, name


def test_rows_of_kto_that_show_something_later_take_no_part_in_the_estimate(made, show):
    _, _, processor = made('qwen2_vl')
    method, template = objective('kto'), get_template(processor)
    later = AutoPreprocessor()({
        'messages': [
            {'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'},
            {'role': 'user', 'content': '<image>c'}, {'role': 'assistant', 'content': 'd'},
        ], 'images': [show(0)], 'label': True,
    })  # fmt: skip
    (first,), (second,), (third,) = method.encode_batch([talk(show(1), 'x', label=True), later, talk(show(2), 'y', label=False)], template)
    assert [len(sample.segment_lengths) for sample in (first, second, third)] == [2, 1, 2]
    assert first.media[1] == first.media[0] and third.media[1]['media'] == [['image', show(2)]]
    batch = method.collate([template.read_media(second)])
    stand_in = batch.extra['mismatched']
    assert stand_in.media is None and stand_in.lengths.tolist() == [2] and (stand_in.labels == IGNORE_INDEX).all()
    assert batch.media[0].listed['pixel_values'].numel()


# ---- texts that show something


def embedding(**fields):
    from types import SimpleNamespace

    from swift.arguments import TaskArgs

    return get_objective('embedding', SimpleNamespace(**{**vars(TaskArgs()), 'loss_type': None, 'loss_kwargs': {}, 'pooling': 'last', **fields}))


def test_a_text_that_is_nothing_but_a_picture_has_the_vector_of_the_picture(tmp_path_factory, show):
    from swift.arguments.model import ModelArgs
    from swift.model.load import load_model

    for family in ('llava', 'qwen2_vl'):
        path = save_vlm(tmp_path_factory.mktemp(family) / 'model', family)
        loaded = load_model(ModelArgs(model=path, task_type='embedding'))
        template, method = get_template(loaded.processor, use_chat_template=False), embedding()
        rows = [{'anchor': '<image>', 'positive': 'a red circle', 'images': [show(number)]} for number in (0, 3, 0)]
        rows.append({'anchor': 'a red circle', 'positive': '<image>', 'positive_images': [show(0)]})
        samples = samples_of(method, [AutoPreprocessor()(row) for row in rows], template)
        batch = method.collate(samples)
        plan = selfcheck.plan(loaded.model.eval(), samples)
        with torch.no_grad():
            vectors = method.embed(batch, Actors(ModelActor(loaded.model, plan)))
        one, red, other, _, again, _, _, positive = torch.nn.functional.normalize(vectors, dim=-1)
        assert (one - other).abs().max() > 1e-3
        torch.testing.assert_close(one, again, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one, positive, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(red, vectors[6] / vectors[6].norm(), atol=1e-5, rtol=1e-4)
        names = batch.extra['texts']['name'].tolist()
        assert names[0] == names[4] == names[7] != names[2] and names[1] == names[3] == names[6]


def test_an_embedding_is_read_by_the_chat_template_where_it_shows_something(made, show):
    _, _, processor = made('qwen2_vl')
    template = get_template(processor, use_chat_template=False)
    (shown, text), = [
        [part for part in torch.tensor(sample.input_ids).split(sample.segment_lengths)]
        for (sample,) in embedding().encode_batch([AutoPreprocessor()({'anchor': '<image>', 'positive': 'red', 'images': [show(0)]})], template)
    ]  # fmt: skip
    rendered = processor.apply_chat_template([{'role': 'user', 'content': [{'type': 'image'}]}])
    own = processor(text=[rendered], images=[[Image.open(show(0))]], return_tensors='pt')['input_ids'][0].tolist()
    assert shown.tolist() == [*own, processor.tokenizer.eos_token_id]
    assert text.tolist() == [*processor.tokenizer('red')['input_ids'], processor.tokenizer.eos_token_id]


@pytest.mark.parametrize('strategy', ['right', 'left'])
def test_a_picture_stays_whole_or_goes(made, show, strategy):
    _, _, processor = made('qwen2_vl')
    from swift.objectives.texts import encode_texts

    image = processor.tokenizer.convert_tokens_to_ids('<|image_pad|>')
    messages = talk(show(0), 'x').messages[:1]
    plain = dict(use_chat_template=False, truncation_strategy=strategy)
    (whole,) = encode_texts([messages], get_template(processor, **plain), end=True)
    full = whole.ids.count(image)
    seen = set()
    for limit in (3, 5, 8, 12, len(whole.ids) - 1, len(whole.ids)):
        (text,) = encode_texts([messages], get_template(processor, max_length=limit, **plain), end=True)
        if isinstance(text, RowError):
            assert 'nothing of the text is left' in str(text)
            continue
        count = text.ids.count(image)
        assert len(text.ids) <= limit and count in (0, full) and bool(text.shown) == bool(count)
        assert text.ids[-1] == processor.tokenizer.eos_token_id or strategy == 'right'
        seen.add(count)
    assert seen == {0, full}


def test_a_reranker_cuts_the_words_of_a_document_not_its_picture(made, show):
    _, _, processor = made('qwen2_vl')
    from swift.objectives.reranker import Dialogue
    from swift.objectives.texts import parts_of

    image = processor.tokenizer.convert_tokens_to_ids('<|image_pad|>')
    query = [{'role': 'user', 'content': 'which one is red'}]
    document = parts_of(talk(show(0), 'x').messages[:1])
    whole = Dialogue(get_template(processor)).render(query, document)
    for strategy, kept in (('right', 'What'), ('left', 'it?')):
        template = get_template(processor, max_length=len(whole.ids) - 4, truncation_strategy=strategy)
        (text,), _ = Dialogue(template)(query, [document])
        assert len(text.ids) <= template.max_length and text.ids.count(image) == whole.ids.count(image)
        assert kept in processor.tokenizer.decode(text.ids) and text.shown['media'] == [['image', show(0)]]


def test_words_are_classified_without_pictures(made, show):
    _, _, processor = made('qwen2_vl')
    from types import SimpleNamespace

    row = AutoPreprocessor()({'tokens': ['a', 'b'], 'label': ['x', 'y'], 'images': [show(0)]})
    method = get_objective('token_cls', SimpleNamespace(num_labels=2, class_names=['x', 'y']))
    (error,) = method.encode_batch([row], get_template(processor))
    assert 'the row has images, but classes are given to words' in str(error)


# ---- TRL


@pytest.mark.slow
@pytest.mark.parametrize('family', ['llava', 'qwen2_vl'])
def test_dpo_with_pictures_is_trls(made, show, tmp_path, family):
    """Ours first: TRL's trainer puts a forward of its own on the model."""
    pytest.importorskip('trl')
    pytest.importorskip('datasets')
    from datasets import Dataset, disable_progress_bars
    from trl import DPOConfig, DPOTrainer

    disable_progress_bars()
    policy, reference, processor = made(family)
    answers = [('It is red.', 'It is as blue as the sky.'), ('yellow', 'I see green and nothing else')]
    method, template = objective('dpo', beta=0.1), get_template(processor)
    samples = samples_of(method, [talk(show(n), a, b) for n, (a, b) in enumerate(answers)], template)
    found = run(method, [samples], who=ours(policy, reference, samples)[0])
    rows = [
        {'prompt': asked(processor), 'chosen': said(family, a), 'rejected': said(family, b), 'images': [Image.open(show(n)).convert('RGB')]}
        for n, (a, b) in enumerate(answers)
    ]
    settings = DPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False, disable_dropout=True,
                         max_length=None, beta=0.1)  # fmt: skip
    trainer = DPOTrainer(model=policy, ref_model=reference, args=settings, train_dataset=Dataset.from_list(rows), processing_class=processor)
    policy.zero_grad()
    loss = trainer._compute_loss(policy, trainer.data_collator([dict(row) for row in rows]), False)
    loss.backward()
    norm = torch.cat([weight.grad.reshape(-1) for weight in policy.parameters() if weight.grad is not None]).double().norm().item()
    assert found['loss'] == pytest.approx(loss.item(), rel=1e-5)
    assert found['grad_norm'] == pytest.approx(norm, rel=1e-4)
