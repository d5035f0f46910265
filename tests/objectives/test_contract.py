"""What every registered method must keep, whatever it computes. A new method adds an entry to tests/helpers/methods.py."""

import functools

import pytest

from swift.arguments.methods import METHODS
from swift.core.errors import RowError, SwiftError
from swift.core.types import Conversation, Sample
from swift.objectives import OBJECTIVES, get_objective
from swift.template import get_template
from tests.helpers.bench import FILLER, evaluate, make_bench, run_step
from tests.helpers.methods import CASES
from tests.helpers.mm_matrix import METHODS as SHOWN
from tests.helpers.mm_matrix import shower, shown_rows
from tests.helpers.vlm import save_vlm

VARIANTS = [pytest.param(name, label, id=f'{name}-{label}') for name, case in CASES.items() for label in case.variants]


@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SWIFT_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='module')
def bench(tiny_dir, tmp_path_factory):
    """Method, variant → Bench of 6 rows; made once."""

    @functools.cache
    def make(name, label, **more):
        folder = str(tmp_path_factory.mktemp(name))
        return make_bench(name, folder, tiny_dir, count=6, **CASES[name].variants[label], **more)

    return make


def same(one, other):
    assert one.weight == pytest.approx(other.weight, rel=1e-6)
    assert one.loss == pytest.approx(other.loss, rel=1e-5, abs=1e-6)
    assert (one.gradient - other.gradient).abs().max() < 1e-4 * one.gradient.abs().max()
    assert one.metrics == pytest.approx(other.metrics, rel=1e-4, abs=1e-5)


@pytest.fixture(scope='module')
def shown_bench(tmp_path_factory):
    """Method, family → Bench of 6 rows, of which some show nothing, some one picture or two."""
    folder = tmp_path_factory.mktemp('shown')
    show = shower(folder / 'media', 'image')

    @functools.cache
    def make(name, family):
        rows = shown_rows(name, 6, 'image', show)
        return make_bench(name, str(folder), save_vlm(folder / family, family), rows=rows, max_length=512)

    return make


def test_every_method_is_covered():
    assert set(CASES) == set(OBJECTIVES) == set(METHODS)


@pytest.mark.parametrize('name', CASES)
def test_every_loss_of_the_command_line_is_covered(name):
    tried = set()
    for flags in CASES[name].variants.values():
        chosen = flags.get('loss_type', METHODS[name].losses[:1])
        tried |= {chosen} if isinstance(chosen, str) else set(chosen)
    assert tried >= set(METHODS[name].losses)


@pytest.mark.parametrize('name', CASES)
def test_split_packing_order_processes_and_fillers_change_nothing(bench, name):
    """One by one, for the first variant of every method."""
    made = bench(name, next(iter(CASES[name].variants)))
    samples = made.samples
    assert len(samples) == 6
    whole = run_step(made, [samples])
    same(whole, run_step(made, [samples[:2], samples[2:]]))
    same(whole, run_step(made, [[sample] for sample in samples]))
    same(whole, run_step(made, [samples], padded=True))
    same(whole, run_step(made, [samples[::-1]]))
    same(whole, run_step(made, [samples[:3]], [samples[3:]]))
    same(whole, run_step(made, [samples[:1], samples[1:]], [FILLER, FILLER]))


@pytest.mark.parametrize('name', SHOWN)
@pytest.mark.parametrize('family', ['llava', 'qwen2_vl'])
def test_nor_of_rows_that_show_something(shown_bench, name, family):
    """Flat = padded = accumulated = spread over processes with a filler."""
    made = shown_bench(name, family)
    a, b, c, d, e, f = samples = made.samples
    assert {True, False} == {any(sample.media or ()) for sample in samples}
    whole = run_step(made, [samples])
    assert whole.loss != 0 and whole.weight > 0 and whole.gradient.abs().max() > 0
    same(whole, run_step(made, [[f, d], [a]], [[e, b, c], FILLER], padded=True))
    same(whole, run_step(made, [[sample] for sample in samples]))


@pytest.mark.parametrize(('name', 'label'), VARIANTS)
def test_nothing_of_that_changes_a_variant(bench, name, label):
    """All of it at once."""
    made = bench(name, label)
    samples = made.samples
    whole = run_step(made, [samples])
    assert whole.loss != 0 and whole.weight > 0 and whole.gradient.abs().max() > 0
    same(whole, run_step(made, [[samples[5], samples[3]], [samples[0]]], [[samples[4], samples[1], samples[2]], FILLER], padded=True))


@pytest.mark.parametrize(('name', 'label'), VARIANTS)
def test_measures_do_not_depend_on_the_batches_of_an_evaluation(bench, name, label):
    made = bench(name, label)
    whole = evaluate(made, made.samples)
    assert all(isinstance(value, float) for value in whole.values())
    assert whole == pytest.approx(evaluate(made, made.samples[4:], made.samples[:1], made.samples[1:4]), rel=1e-5, abs=1e-6)


EQUAL = [pytest.param(name, label, id=f'{name}-{label}') for name, case in CASES.items() for label in case.indifferent]


@pytest.mark.parametrize(('name', 'label'), EQUAL)
def test_no_preference_no_gradient(tiny_dir, tmp_path, name, label):
    flags = CASES[name].variants[label]
    made = make_bench(name, str(tmp_path), tiny_dir, count=6, noise=0.0, **flags)
    scale = run_step(made, [made.samples]).gradient.abs().max()
    assert run_step(made, [[without_preference(sample) for sample in made.samples]]).gradient.abs().max() < 1e-5 * scale


def without_preference(sample):
    """The pair with the chosen answer on both sides."""
    size = sample.segment_lengths[0]
    twice = {name: list(getattr(sample, name)[:size]) * 2 for name in ('input_ids', 'labels')}
    return Sample(**twice, lengths=[size, size], extra={name: 0.0 for name in sample.extra or {}}, source=sample.source)


@pytest.mark.parametrize('name', [name for name in CASES if OBJECTIVES[name].columns])
def test_a_row_without_what_the_method_needs_says_what_it_has(bench, tokenizer, name):
    made = bench(name, next(iter(CASES[name].variants)))
    talk = Conversation([{'role': 'user', 'content': 'a'}], columns={'mood': 'good'}, source='f:1')
    (error,) = made.objective.encode_batch([talk], get_template(tokenizer))
    assert isinstance(error, RowError) and error.source == 'f:1' and 'messages' in str(error) and 'mood' in str(error)


@pytest.mark.parametrize('name', [name for name in CASES if METHODS[name].losses])
def test_an_unknown_loss_is_answered_with_the_nearest(bench, tiny_dir, tmp_path, name):
    known = METHODS[name].losses[0]
    with pytest.raises(SwiftError, match=f'did you mean {known!r}'):
        make_bench(name, str(tmp_path), tiny_dir, loss_type=known[:-1] + known[-1] * 2)


def test_an_unknown_method_is_answered_with_the_nearest():
    with pytest.raises(SwiftError, match="did you mean 'sft'"):
        get_objective('sftt', None)
