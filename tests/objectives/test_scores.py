"""Figures of classifiers against scikit-learn and SciPy, and entities worked by hand."""

import random

import pytest
import torch

from swift.objectives.scores import (
    class_figures,
    entities,
    entity_figures,
    marks_entities,
    regression_figures,
    set_figures,
)

metrics = pytest.importorskip('sklearn.metrics')


def wanted(truth, predicted, **more):
    macro = metrics.precision_recall_fscore_support(truth, predicted, average='macro', zero_division=0, **more)
    return {
        'f1_macro': macro[2], 'f1_micro': metrics.f1_score(truth, predicted, average='micro', zero_division=0, **more),
        'precision': macro[0], 'recall': macro[1],
    }  # fmt: skip


@pytest.mark.parametrize('seed', range(5))
def test_classes_are_scored_as_scikit_learn_does(seed):
    draw = torch.Generator().manual_seed(seed)
    truth, predicted = torch.randint(0, 5, (40,), generator=draw), torch.randint(0, 4, (40,), generator=draw)
    assert class_figures(predicted, truth, 7) == pytest.approx(wanted(truth, predicted), abs=1e-12)
    labels = sorted(({*truth.tolist(), *predicted.tolist()}) - {0})
    assert class_figures(predicted, truth, 7, ignored=0) == pytest.approx(wanted(truth, predicted, labels=labels), abs=1e-12)


def test_sets_are_scored_as_scikit_learn_does():
    draw = torch.Generator().manual_seed(0)
    truth, predicted = (torch.rand(30, 4, generator=draw) > 0.6 for _ in range(2))
    truth[:, 3] = predicted[:, 3] = False
    assert set_figures(predicted, truth) == pytest.approx(wanted(truth.int().numpy(), predicted.int().numpy()), abs=1e-12)


def test_regressions_are_scored_as_scipy_does():
    stats = pytest.importorskip('scipy.stats')
    draw = torch.Generator().manual_seed(0)
    truth = torch.randn(50, 2, generator=draw).round(decimals=1)  # with ties
    found = truth * 0.5 + torch.randn(50, 2, generator=draw)
    expected = {
        'rmse': metrics.mean_squared_error(truth.reshape(-1), found.reshape(-1)) ** 0.5,
        'pearson': sum(stats.pearsonr(truth[:, c], found[:, c])[0] for c in (0, 1)) / 2,
        'spearman': sum(stats.spearmanr(truth[:, c], found[:, c])[0] for c in (0, 1)) / 2,
    }
    assert regression_figures(found, truth) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(('tags', 'found'), [
    ('B-PER I-PER O B-LOC', [(0, 2, 'PER'), (3, 4, 'LOC')]),
    ('B-PER B-PER I-PER', [(0, 1, 'PER'), (1, 3, 'PER')]),
    ('I-PER I-PER O I-LOC', [(0, 2, 'PER'), (3, 4, 'LOC')]),
    ('B-PER I-LOC I-LOC', [(0, 1, 'PER'), (1, 3, 'LOC')]),
    ('S-PER B-LOC I-LOC E-LOC S-PER', [(0, 1, 'PER'), (1, 4, 'LOC'), (4, 5, 'PER')]),
    ('B-LOC E-LOC E-LOC', [(0, 2, 'LOC'), (2, 3, 'LOC')]),
    ('U-PER B-LOC L-LOC I-LOC', [(0, 1, 'PER'), (1, 3, 'LOC'), (3, 4, 'LOC')]),
    ('O O', []),
    ('B-A-B I-A-B', [(0, 2, 'A-B')]),
])  # fmt: skip
def test_entities_are_read_as_the_conll_script_reads_them(tags, found):
    tags = tags.split()
    assert list(entities(tags, [place == 0 for place in range(len(tags))])) == found


def test_an_entity_does_not_reach_into_the_next_text():
    assert list(entities(['B-PER', 'I-PER'], [True, True])) == [(0, 1, 'PER'), (1, 2, 'PER')]


def test_entities_count_when_borders_and_type_are_right():
    names = ['O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC']
    truth = torch.tensor([1, 2, 0, 3, 0, 1, 2])
    predicted = torch.tensor([1, 2, 0, 3, 4, 1, 0])  # PER right, LOC too long, the second PER too short
    begins = torch.tensor([True, False, False, False, False, True, False])
    assert entity_figures(predicted, truth, begins, names) == pytest.approx({'f1': 1 / 3, 'precision': 1 / 3, 'recall': 1 / 3})
    nothing = torch.zeros(7, dtype=torch.int64)
    assert entity_figures(nothing, truth, begins, names) == {'f1': 0.0, 'precision': 0.0, 'recall': 0.0}


@pytest.mark.parametrize('scheme', ['BIO', 'BIOES'])
def test_entities_come_back_from_the_tags_that_were_written_for_them(scheme):
    draw = random.Random(0)
    for _ in range(200):
        tags, wanted_entities = [], []
        while len(tags) < 12:
            kind, size = draw.choice(['PER', 'LOC', None]), draw.randint(1, 3)
            if kind is None:
                tags.append('O')
                continue
            inner = ['B', *'I' * (size - 1)] if scheme == 'BIO' or size > 1 else ['S']
            if scheme == 'BIOES' and size > 1:
                inner[-1] = 'E'
            wanted_entities.append((len(tags), len(tags) + size, kind))
            tags += [f'{prefix}-{kind}' for prefix in inner]
        assert list(entities(tags, [place == 0 for place in range(len(tags))])) == wanted_entities


def test_which_names_are_tags():
    assert marks_entities(['O', 'B-PER', 'I-PER']) and marks_entities(['S-X', 'B-X', 'E-X', 'I-X', 'O'])
    assert not marks_entities(['O', 'PERSON', 'CITY']) and not marks_entities(['B-PER', 'other']) and not marks_entities([])
