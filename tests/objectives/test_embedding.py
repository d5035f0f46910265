"""The embedding objective: how texts are encoded, what a row must have, the gradient of a whole step, evaluation, losses of one's own."""

import copy
import math

import pytest
import torch

from swift.arguments.task import TaskArgs
from swift.arguments.template import TemplateArgs
from swift.core.errors import RowError, SwiftError
from swift.core.types import Actors, Conversation, Sample
from swift.objectives import get_objective
from swift.objectives.custom import loss_map
from swift.objectives.pool import pool
from swift.objectives.texts import Text, encode_texts
from swift.template import get_template
from swift.trainers.attention import use_segments
from swift.trainers.forward import ModelActor, Plan
from tests.helpers.tiny import build_model, build_tokenizer


class Args(TaskArgs):
    """TaskArgs with the settled pooling and what TrainArgs adds."""

    def __init__(self, loss_type=None, loss_kwargs=None, **fields):
        super().__init__(**{'pooling': 'last', **fields})
        self.loss_type, self.loss_kwargs = loss_type, loss_kwargs


def embedding(**fields):
    return get_objective('embedding', Args(**fields))


def said(text, role='user'):
    return [{'role': role, 'content': text}]


def talk(anchor, positives=None, negatives=None, **fields):
    def several(texts):
        return None if texts is None else [said(text) for text in texts]

    return Conversation(said(anchor), positives=several(positives), negatives=several(negatives), source='f.jsonl:1', **fields)


@pytest.fixture(scope='module')
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope='module')
def bert_tokenizer():
    return encoder_tokenizer()


def encoder_tokenizer():
    """[CLS] a [SEP], [CLS] a [SEP] b [SEP] with token types, as BERT's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *'abcdefghij']
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token='[UNK]'))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token='[PAD]', unk_token='[UNK]', cls_token='[CLS]', sep_token='[SEP]',
        model_input_names=['input_ids', 'token_type_ids', 'attention_mask'],
    )  # fmt: skip


def plain(tokenizer, **fields):
    return get_template(tokenizer, TemplateArgs(use_chat_template=False, **fields))


# ---- rows


def test_texts_are_what_the_tokenizer_says_and_end_in_eos_for_the_last_token(tokenizer, bert_tokenizer):
    texts = ['hello world', '你好', 'a']
    own = [tokenizer(text)['input_ids'] for text in texts]
    assert [text.ids for text in encode_texts([said(text) for text in texts], plain(tokenizer), end=False)] == own
    ended = [text.ids for text in encode_texts([said(text) for text in texts], plain(tokenizer), end=True)]
    assert ended == [[*ids, tokenizer.eos_token_id] for ids in own]
    for end in (False, True):
        assert encode_texts([said('a b')], plain(bert_tokenizer), end=end) == [Text([2, 4, 5, 3])]


def test_an_instruction_stands_in_front_and_the_chat_template_only_when_asked_for(tokenizer):
    messages = [{'role': 'system', 'content': 'Find: '}, *said('hello')]
    assert encode_texts([messages], plain(tokenizer), end=False) == [Text(tokenizer('Find: hello')['input_ids'])]
    rendered = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    (text,) = encode_texts([messages], get_template(tokenizer), end=True)
    assert text.ids == [*rendered, tokenizer.eos_token_id] or text.ids == rendered


def test_long_texts_are_refused_or_cut_between_their_special_tokens(bert_tokenizer):
    texts = [said('a b c d e f')]
    (error,) = encode_texts(texts, plain(bert_tokenizer, max_length=6), end=False)
    assert isinstance(error, RowError) and '8 tokens, more than max_length 6' in str(error)
    right, left = (
        encode_texts(texts, plain(bert_tokenizer, max_length=6, truncation_strategy=side), end=False)[0].ids for side in ('right', 'left')
    )
    assert right == [2, 4, 5, 6, 7, 3] and left == [2, 6, 7, 8, 9, 3]
    assert right == bert_tokenizer('a b c d e f', truncation=True, max_length=6)['input_ids']


def test_a_row_is_one_sample_of_all_its_texts(tokenizer):
    (result,) = embedding().encode_batch([talk('ab', ['b', 'cd'], ['e'], channel='x')], plain(tokenizer))
    (sample,) = result
    eos = tokenizer.eos_token_id
    parts = [[*tokenizer(text)['input_ids'], eos] for text in ('ab', 'b', 'cd', 'e')]
    assert list(sample.input_ids) == [i for part in parts for i in part] and list(sample.lengths) == [len(part) for part in parts]
    assert sample.extra == {'positives': 2} and sample.source == 'f.jsonl:1' and sample.channel == 'x'
    batch = embedding().collate([sample, sample])
    assert batch.extra['texts']['kind'].tolist() == [0, 1, 1, 2] * 2
    names = batch.extra['texts']['name']
    assert names[:4].tolist() == names[4:].tolist() and len(set(names.tolist())) == 4
    assert embedding().weight(batch) == 4 and embedding(loss_type='triplet').weight(batch) == 4 and embedding(loss_type='cosent').weight(batch) == 6


def test_how_many_texts_of_a_row_are_used(tokenizer):
    row = talk('a', ['b', 'c', 'd'], ['e', 'f', 'g'])
    for fields, expected in (
        ({}, (3, 3)), (dict(max_positive_samples=1), (1, 3)), (dict(max_negative_samples=2), (3, 2)), (dict(infonce_hard_negatives=1), (3, 1)),
    ):  # fmt: skip
        objective = embedding(**fields)
        ((sample,),) = objective.encode_batch([row], plain(tokenizer))
        assert (sample.extra['positives'], len(sample.lengths) - 1 - sample.extra['positives']) == expected
    prints = {embedding(**fields).fingerprint for fields in ({}, dict(infonce_hard_negatives=1), dict(pooling='mean'), dict(max_positive_samples=1))}
    assert len(prints) == 4


@pytest.mark.parametrize(('fields', 'row', 'what'), [
    ({}, talk('a', columns={'mood': 1}), 'the row has messages, mood, but no text that belongs to it; it is read from positive_messages'),
    (dict(loss_type='triplet'), talk('a', ['b']), 'but no text that does not belong to it; it is read from negative_messages'),
    (dict(infonce_use_batch=False), talk('a', ['b']), 'but no text that does not belong to it'),
    (dict(loss_type='cosent'), talk('a', ['b']), 'but no label (how similar its two texts are); it is read from label or score'),
    (dict(loss_type='contrastive'), talk('a', ['b'], label='warm'), "label must be a number, got 'warm'"),
    (dict(loss_type='contrastive'), talk('a', ['b'], label=5), 'label is 5, but contrastive needs a similarity up to 1'),
    (dict(loss_type='online_contrastive'), talk('a', ['b'], label=0.5), 'label is 0.5, but online_contrastive needs 1 (similar) or 0'),
    ({}, talk('a', ['b'], label=0.3), 'label is 0.3, but infonce takes every positive as one; train scores with --loss_type cosine_similarity'),
    ({}, talk(' ', ['b']), 'a text of this row is empty'),
    ({}, Conversation([{'role': 'user', 'content': [{'type': 'image', 'image': 'x'}]}], positives=[said('b')], source='f.jsonl:1'), 'the row has images, but the model reads text only'),
])  # fmt: skip
def test_a_row_that_does_not_fit_says_why(tokenizer, fields, row, what):
    good = talk('a', ['b'], ['c'], label=1)
    first, error, last = embedding(**fields).encode_batch([good, row, good], plain(tokenizer))
    assert isinstance(error, RowError) and str(error).startswith('f.jsonl:1: ') and what in str(error)
    assert [len(found) for found in (first, last)] == [1, 1]


def test_scores_of_pairs(tokenizer):
    objective = embedding(loss_type='cosine_similarity')
    rows = objective.encode_batch([talk('a', ['b'], label=0.25), talk('a', ['b'], ['c', 'd'])], plain(tokenizer))
    score = objective.collate([sample for (sample,) in rows]).extra['texts']['score'].tolist()
    assert score[1:2] + score[3:] == [0.25, 1, 0, 0] and math.isnan(score[0]) and math.isnan(score[2])


# ---- the gradient of a step


def random_rows(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for number in range(count):
        lengths = torch.randint(2, 9, (3 + number % 2,), generator=generator).tolist()
        ids = torch.randint(3, 600, (sum(lengths),), generator=generator).tolist()
        samples.append(Sample(ids, [-100] * len(ids), lengths=lengths, label=float(number % 3) / 2, extra={'positives': 1}, source=f'r:{number}'))
    return samples


def gradient(model, objective, micro, gather=lambda value: value, noise=None, seed=5):
    """(gradient, sum of losses) of a step of the micro-batches, with the random numbers of `seed`."""
    model.zero_grad()
    actors = Actors(ModelActor(model, Plan(), noise=noise))
    batches = [objective.collate(samples) for samples in micro]
    torch.manual_seed(seed)
    with torch.no_grad():
        objective.prepare(batches, actors, gather)
    total = 0.0
    for batch in batches:
        loss = objective.loss(batch, actors)
        loss.sum.backward()
        total += loss.sum.item()
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()]), total


def another_process_without_rows(value):
    """`gather` of two processes, of which the other has nothing."""
    return torch.cat([value, value.new_zeros(1)]) if value.dim() == 1 and len(value) == 1 else value


@pytest.fixture(scope='module')
def dropping_model():
    from transformers import Qwen3Model

    model = Qwen3Model(build_model(attention_dropout=0.3).config)
    torch.manual_seed(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    use_segments(model)
    return model.train()


@pytest.mark.parametrize('noise', [None, 5.0], ids=['dropout', 'dropout and noise'])
@pytest.mark.parametrize('name', ['infonce', 'cosent', 'online_contrastive', 'triplet'])
def test_the_second_forward_has_the_random_numbers_of_the_first(dropping_model, name, noise):
    """One micro-batch, directly and through stored gradients: the same numbers are drawn, so the gradients are the same."""
    objective = embedding(loss_type=name, margin=1.0) if name != 'infonce' and name != 'cosent' else embedding(loss_type=name)
    rows = random_rows(6)
    direct = gradient(dropping_model, objective, [rows], noise=noise)
    stored = gradient(dropping_model, objective, [rows], another_process_without_rows, noise=noise)
    other = gradient(dropping_model, objective, [rows], noise=noise, seed=6)
    assert stored[1] == pytest.approx(direct[1], rel=1e-6)
    scale = direct[0].abs().max()
    assert (stored[0] - direct[0]).abs().max() < 1e-5 * scale
    assert (other[0] - direct[0]).abs().max() > 1e-2 * scale, 'the random numbers matter here'


def test_random_numbers_go_on_behind_the_second_forward(dropping_model):
    """What is drawn after a step does not repeat what its micro-batches drew."""
    objective, rows = embedding(), random_rows(4)
    drawn = []
    for gather in (lambda value: value, another_process_without_rows):
        gradient(dropping_model, objective, [rows], gather)
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize('name', ['infonce', 'cosent', 'online_contrastive', 'cosine_similarity'])
def test_micro_batches_have_the_gradient_of_the_step(dropping_model, name):
    """Whole, in threes, one by one (without dropout, whose draws depend on the shapes)."""
    model, objective, rows = copy.deepcopy(dropping_model).eval(), embedding(loss_type=name, infonce_temperature=0.05), random_rows(6)
    whole = gradient(model, objective, [rows])
    for micro in ([rows[:3], rows[3:]], [[row] for row in rows]):
        found = gradient(model, objective, micro)
        assert found[1] == pytest.approx(whole[1], rel=1e-5)
        assert (found[0] - whole[0]).abs().max() < 1e-4 * whole[0].abs().max()


def test_alone_is_not_the_step(dropping_model):
    """The test above would not notice losses that ignore other micro-batches; this one would."""
    model, objective, rows = copy.deepcopy(dropping_model).eval(), embedding(), random_rows(6)
    whole = gradient(model, objective, [rows])[0]
    apart = sum(gradient(model, objective, [[row]])[0] for row in rows)
    assert (apart - whole).abs().max() > 0.1 * whole.abs().max()


@pytest.mark.parametrize('how', ['last', 'mean', 'cls'])
def test_pooling_flat_and_padded(how):
    lengths = torch.tensor([3, 1, 4])
    rows = [torch.randn(size, 5) for size in lengths.tolist()]
    objective = embedding()
    sample = Sample(list(range(8)), [-100] * 8, lengths=lengths.tolist(), extra={'positives': 1})
    expected = torch.stack([{'last': row[-1], 'cls': row[0], 'mean': row.mean(0)}[how] for row in rows])
    torch.testing.assert_close(pool(torch.cat(rows)[None], objective.collate([sample]), how), expected)
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=9.0)
    torch.testing.assert_close(pool(padded, objective.collate([sample], padded=True), how), expected)


# ---- evaluation, losses of one's own


def evaluated(objective, vectors, samples):
    texts = objective.collate(samples).extra['texts']
    return objective.measure({'vectors': vectors, **texts})


def test_the_loss_of_an_evaluation_compares_everything_with_everything():
    """Rows of one positive and no negative, evaluated one by one, have a loss of 0 each; the evaluation as a whole has not."""
    samples = [Sample([5 + n, 50 + n], [-100] * 2, lengths=[1, 1], extra={'positives': 1}) for n in range(3)]
    vectors = torch.eye(3).repeat_interleave(2, 0)
    found = evaluated(embedding(infonce_temperature=1.0), vectors, samples)
    assert found['loss'] == pytest.approx(math.log(1 + 2 / math.e), rel=1e-6)
    assert found['recall@1'] == found['mrr'] == found['ndcg@10'] == found['accuracy'] == 1.0
    away = torch.cat([vectors[:-1], -vectors[-1:]])
    assert evaluated(embedding(), away, samples)['recall@1'] == pytest.approx(2 / 3)


def test_smaller_sizes_are_measured_too():
    samples = [Sample([5 + n, 50 + n], [-100] * 2, lengths=[1, 1], extra={'positives': 1}) for n in range(3)]
    found = evaluated(embedding(mrl_dims=[2]), torch.eye(3).repeat_interleave(2, 0), samples)
    assert found['recall@1'] == 1.0 and found['recall@1_dim2'] < 1.0


def test_scored_pairs_are_measured_by_correlation():
    samples = [Sample([5, 6], [-100] * 2, lengths=[1, 1], label=score, extra={'positives': 1}) for score in (0.1, 0.5, 0.9)]
    found = evaluated(embedding(loss_type='cosent'), torch.tensor([[1.0, 0], [0, 1], [1, 0], [1, 1], [1, 0], [1, 0]]), samples)
    assert found['spearman'] == pytest.approx(1.0) and 0.9 < found['pearson'] < 1.0


@pytest.fixture
def own_loss():
    @loss_map.register('centred')
    def centred(outputs, labels, *, power=2):
        vectors = outputs['last_hidden_state']
        assert torch.equal(vectors, outputs.last_hidden_state) and labels.shape == (int((outputs.kind != 0).sum()),)
        return (vectors[outputs.kind == 0].mean(0) ** power).sum() + labels.mean()

    yield
    del loss_map['centred']


def test_a_loss_of_ones_own_sees_the_whole_step(own_loss, dropping_model):
    model, objective, rows = copy.deepcopy(dropping_model).eval(), embedding(loss_type='centred', loss_kwargs={'power': 4}), random_rows(6)
    whole = gradient(model, objective, [rows])
    split = gradient(model, objective, [rows[:2], rows[2:]])
    assert split[1] == pytest.approx(whole[1], rel=1e-5) and (split[0] - whole[0]).abs().max() < 1e-4 * whole[0].abs().max()
    with pytest.raises(SwiftError, match="takes no argument 'powr'"):
        embedding(loss_type='centred', loss_kwargs={'powr': 4})


def test_an_unknown_loss_is_answered_with_the_nearest():
    with pytest.raises(SwiftError, match="unknown loss_type 'infonse'; did you mean 'infonce'"):
        embedding(loss_type='infonse')
