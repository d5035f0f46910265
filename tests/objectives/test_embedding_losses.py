"""Losses on embeddings: worked by hand, against loops as the formulas read, and against numbers of sentence-transformers 6.2."""

import math

import pytest
import torch

from swift.arguments.task import TaskArgs
from swift.core.errors import SwiftError
from swift.objectives import embedding_losses
from swift.objectives.embedding_losses import ANCHOR, LOSSES, NEGATIVE, POSITIVE, Step, matryoshka


def make_step(*rows, size=5, seed=0, names=None, scores=None):
    """A step of random vectors; a row is its kinds, such as 'apn' for anchor, positive, negative. Equal names have equal vectors."""
    kind = torch.tensor([{'a': ANCHOR, 'p': POSITIVE, 'n': NEGATIVE}[letter] for row in rows for letter in row])
    names = torch.arange(len(kind)) if names is None else torch.tensor(names)
    pool = torch.randn(100, size, generator=torch.Generator().manual_seed(seed))
    score = torch.where(kind == ANCHOR, torch.nan, (kind == POSITIVE).float())
    if scores is not None:
        score[kind != ANCHOR] = torch.tensor(scores, dtype=torch.float32)
    return Step(pool[names].requires_grad_(), kind, names, score)


def vectors(*degrees):
    """Unit vectors in the plane."""
    angle = torch.tensor(degrees, dtype=torch.float32).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], 1)


def laid_out(rows, degrees, scores=None):
    step = make_step(*rows, size=2, scores=scores)
    return Step(vectors(*degrees), step.kind, step.name, step.score)


# ---- InfoNCE


def naive_infonce(step, args):
    """Item by item, candidate by candidate, in Python."""
    texts = list(zip(step.kind.tolist(), step.name.tolist(), step.row.tolist(), step.unit.detach().double(), strict=True))
    anchors = {row: (name, v) for kind, name, row, v in texts if kind == ANCHOR}
    belongs = {(anchors[row][0], name) for kind, name, row, _ in texts if kind == POSITIVE}
    losses = []
    for kind, _, row, p in texts:
        if kind != POSITIVE:
            continue
        asked, a = anchors[row]
        found = float(a @ p)
        against = []
        for other_kind, other_name, other_row, v in texts:
            if (asked, other_name) in belongs or other_name == asked:
                continue
            document = other_kind != ANCHOR
            if document and ((other_row == row and other_kind == NEGATIVE) or (other_row != row and args.infonce_use_batch)):
                against.append(float(a @ v))
            if not document and args.infonce_include_qq:
                against.append(float(a @ v))
            if document and other_row != row and args.infonce_include_dd:
                against.append(float(p @ v))
        if args.infonce_mask_fake_negative:
            against = [s for s in against if s <= found + args.infonce_fake_neg_margin]
        tau = args.infonce_temperature
        losses.append(math.log(sum(math.exp((s - found) / tau) for s in [found, *against])))
    return losses


VARIANTS = {
    'plain': {},
    'cold': dict(infonce_temperature=0.02),
    'own': dict(infonce_use_batch=False),
    'qq': dict(infonce_include_qq=True),
    'dd': dict(infonce_include_dd=True),
    'all': dict(infonce_include_qq=True, infonce_include_dd=True, infonce_mask_fake_negative=True, infonce_fake_neg_margin=0.05),
    'qq only': dict(infonce_use_batch=False, infonce_include_qq=True),
}
GROUPS = {
    'negatives': dict(rows=['apn', 'apnn', 'ap', 'apn']),
    'positives': dict(rows=['appn', 'ap', 'appp']),
    'shared texts': dict(
        rows=['apn', 'apn', 'ap', 'ap'],
        #     row 1    row 2 has the positive of row 1 as negative; row 3 has the anchor of row 1; row 4 the anchor of row 2 as positive
        names=[1, 2, 3, 4, 5, 2, 1, 6, 7, 4],
    ),
}


@pytest.mark.parametrize('block', [1 << 24, 12], ids=['one block', 'blocks'])
@pytest.mark.parametrize('group', GROUPS)
@pytest.mark.parametrize('variant', VARIANTS)
def test_infonce_equals_a_naive_loop(monkeypatch, variant, group, block):
    monkeypatch.setattr(embedding_losses, 'BLOCK', block)
    args = TaskArgs(**VARIANTS[variant])
    step = make_step(*GROUPS[group]['rows'], names=GROUPS[group].get('names'))
    items = LOSSES['infonce'](step, args)
    assert items.values.tolist() == pytest.approx(naive_infonce(step, args), rel=2e-5, abs=5e-6)
    assert items.row.tolist() == step.row[step.kind == POSITIVE].tolist()


def test_blocks_have_the_gradient_of_the_whole(monkeypatch):
    args = TaskArgs(infonce_include_qq=True, infonce_include_dd=True)
    gradients = []
    for block in (1 << 24, 30):
        monkeypatch.setattr(embedding_losses, 'BLOCK', block)
        step = make_step('apn', 'appn', 'ap', 'apnn')
        gradients.append(torch.autograd.grad(LOSSES['infonce'](step, args).values.sum(), step.vectors)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)


def test_infonce_by_hand():
    """Anchor at 0°, positive at 60° (cosine ½), negative at 90° (0): log(1 + e^{-½/τ})."""
    step = laid_out(['apn'], (0, 60, 90))
    items = LOSSES['infonce'](step, TaskArgs(infonce_temperature=0.25))
    assert items.values.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)
    metrics = {name: values.item() for name, (values, _) in items.metrics.items()}
    assert metrics == pytest.approx({'positive_similarity': 0.5, 'negative_similarity': 0.0, 'accuracy': 1.0}, abs=1e-6)


def test_a_fake_negative_is_left_out():
    """The negative of row 1 is nearer to its anchor than the positive by more than the margin; that of row 2 by less."""
    step = laid_out(['apn', 'apn'], (0, 60, 30, 0, 60, 55))
    args = TaskArgs(infonce_use_batch=False, infonce_temperature=1.0, infonce_mask_fake_negative=True, infonce_fake_neg_margin=0.1)
    values = LOSSES['infonce'](step, args).values
    assert values[0] == 0
    assert values[1].item() == pytest.approx(math.log(1 + math.exp(math.cos(math.radians(55)) - 0.5)), rel=1e-5)


def test_a_row_alone_has_nothing_to_learn_and_says_no_number_that_is_none():
    items = LOSSES['infonce'](make_step('ap'), TaskArgs())
    assert items.values.tolist() == [0] and items.metrics['negative_similarity'][0].numel() == 0


# ---- pairs and triplets


def test_contrastive_by_hand():
    """Cosines ½ and ½, labels 1 and 0: ½ · ½², ½ · max(0, 0.8 - ½)²; the default margin ½ leaves nothing of the second."""
    step = laid_out(['ap', 'ap'], (0, 60, 0, 60), scores=[1, 0])
    assert LOSSES['contrastive'](step, TaskArgs(margin=0.8)).values.tolist() == pytest.approx([0.125, 0.045], rel=1e-5)
    assert LOSSES['contrastive'](step, TaskArgs()).values.tolist() == pytest.approx([0.125, 0.0], abs=1e-6)


def test_online_contrastive_takes_the_hard_pairs():
    """Distances: positives 0.5 and 0, negatives 0.134 and 1. The near positive and the far negative are easy."""
    step = laid_out(['ap', 'ap', 'ap', 'ap'], (0, 60, 0, 0, 0, 30, 0, 90), scores=[1, 1, 0, 0])
    near = 1 - math.cos(math.radians(30))
    expected = [0.25, 0, (0.5 - near) ** 2, 0]
    assert LOSSES['online_contrastive'](step, TaskArgs()).values.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    only = laid_out(['ap', 'ap'], (0, 60, 0, 30), scores=[0, 0])
    values = LOSSES['online_contrastive'](only, TaskArgs(margin=1.0)).values
    assert values.tolist() == pytest.approx([0, (1 - near) ** 2], rel=1e-5)


def test_triplet_by_hand():
    """d(a,p) = ½, d(a,n) = 1 and 0.134: max(0, ½ - 1 + 0.2) = 0 and ½ - 0.134 + 0.2."""
    step = laid_out(['apnn'], (0, 60, 90, 30))
    items = LOSSES['triplet'](step, TaskArgs())
    assert items.values.tolist() == pytest.approx([0, 0.7 - (1 - math.cos(math.radians(30)))], abs=1e-6)
    assert items.metrics['accuracy'][0].tolist() == [1, 0]
    assert len(LOSSES['triplet'](make_step('appnn', 'apn'), TaskArgs()).values) == 5


def test_cosine_similarity_by_hand():
    step = laid_out(['ap', 'ap'], (0, 60, 0, 90), scores=[0.75, 0.5])
    assert LOSSES['cosine_similarity'](step, TaskArgs()).values.tolist() == pytest.approx([0.0625, 0.25], rel=1e-5)


def test_cosent_equals_the_double_sum_in_value_and_gradient():
    scores = [0.5, 0.9, 0.5, 0.1, 0.3, 0.9]
    step = make_step(*['ap'] * 6, scores=scores)
    items = LOSSES['cosent'](step, TaskArgs(cosent_scale=7.0))
    similarity = (step.unit[0::2] * step.unit[1::2]).sum(-1)
    terms = [7.0 * (similarity[j] - similarity[i]) for i in range(6) for j in range(6) if scores[i] > scores[j]]
    naive = torch.log(1 + torch.stack(terms).exp().sum())
    assert items.values.tolist() == pytest.approx([naive.item()] * 6, rel=1e-5)
    ours, theirs = (torch.autograd.grad(value, step.vectors, retain_graph=True)[0] for value in (items.values.mean(), naive))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_cosent_without_an_order_is_nothing():
    step = make_step('ap', 'ap', scores=[0.5, 0.5])
    loss = LOSSES['cosent'](step, TaskArgs()).values.mean()
    assert loss == 0 and torch.autograd.grad(loss, step.vectors)[0].abs().max() == 0


# ---- numbers of sentence-transformers

# On the vectors below: ContrastiveLoss, OnlineContrastiveLoss, CosineSimilarityLoss, CoSENTLoss, TripletLoss (cosine, margin 0.2) and
# MultipleNegativesRankingLoss (scale 20) of sentence-transformers 6.2.0, float32, in one batch of 6 rows.
GOLDEN = {
    'contrastive': 0.1340919,
    'online_contrastive': 1.603638,
    'cosine_similarity': 0.1379586,
    'cosent': 16.76412,
    'triplet': 0.1014071,
    'infonce': 6.371858,
}


def golden_step(columns, scores):
    grid = torch.arange(6 * 3 * 4, dtype=torch.float32).reshape(6, 3, 4)
    values = torch.sin(grid * 1.7) + torch.cos(grid * grid * 0.31)
    kind = torch.tensor([ANCHOR, POSITIVE, NEGATIVE][:columns] * 6)
    score = torch.full((6, columns), math.nan)
    score[:, 1], score[:, 2:] = torch.tensor(scores), 0.0
    return Step(values[:, :columns].reshape(-1, 4), kind, torch.arange(6 * columns), score.reshape(-1))


BINARY, GRADED = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0], [0.9, 0.1, 0.5, 0.5, 0.3, 0.0]


@pytest.mark.parametrize(('name', 'columns', 'scores'), [
    ('contrastive', 2, BINARY), ('online_contrastive', 2, BINARY), ('cosine_similarity', 2, GRADED), ('cosent', 2, GRADED),
    ('triplet', 3, BINARY), ('infonce', 3, BINARY),
])  # fmt: skip
def test_numbers_of_sentence_transformers(name, columns, scores):
    """Its online contrastive loss is a sum over the hard pairs; here as everywhere the mean over all pairs is trained."""
    items = LOSSES[name](golden_step(columns, scores), TaskArgs(infonce_temperature=0.05))
    value = items.values.sum() if name == 'online_contrastive' else items.values.mean()
    assert value.item() == pytest.approx(GOLDEN[name], rel=1e-5)


# ---- Matryoshka


@pytest.mark.parametrize('name', LOSSES)
def test_matryoshka_is_the_mean_over_sizes(name):
    step = make_step('apn', 'apn', 'apn', size=6)
    sizes = [step.cut(2), step.cut(4), step]
    args = TaskArgs(mrl_dims=[2, 4])
    expected = torch.stack([LOSSES[name](cut, args).values for cut in sizes]).mean(0)
    torch.testing.assert_close(matryoshka(LOSSES[name], step, args).values, expected)
    again = matryoshka(LOSSES[name], step, TaskArgs(mrl_dims=[2, 4, 6]))
    torch.testing.assert_close(again.values, expected)
    assert step.cut(2).unit.norm(dim=1).tolist() == pytest.approx([1.0] * 9)


def test_a_size_that_the_model_does_not_have():
    with pytest.raises(SwiftError, match='--mrl_dims 9: the embeddings of this model have 6 dimensions'):
        matryoshka(LOSSES['infonce'], make_step('apn', size=6), TaskArgs(mrl_dims=[2, 9]))
