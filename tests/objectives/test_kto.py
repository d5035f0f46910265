"""KTO: TRL's numbers, a step worked by hand, and what must not change it."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch

from swift.core.errors import RowError, SwiftError
from swift.core.types import IGNORE_INDEX, Actors, AnswerTokens, Conversation, Sample
from swift.dataset.loader import collated
from swift.dataset.store import TokenStore, to_chunk, write_store
from swift.objectives import get_objective
from swift.objectives.kto import mismatched
from swift.template import get_template
from swift.trainers.attention import use_segments
from swift.trainers.forward import ModelActor
from tests.helpers.tiny import build_tokenizer
from tests.objectives.trl.batch import answered, golden, pairs, tiny_model


def kto(**settings):
    defaults = dict(loss_type=[], beta=0.1, desirable_weight=1.0, undesirable_weight=1.0, calculate_KL=None)
    return get_objective('kto', SimpleNamespace(**{**defaults, **settings}))


def judged_samples(keep=None, kl=True):
    """The fixed batch: every row with the answer of the row before as its mismatched one."""
    rows = [row for row in pairs() if keep in (None, row['label'])]
    answers = [row['chosen'] if row['label'] else row['rejected'] for row in rows]
    samples = []
    for number, row in enumerate(rows):
        parts = [answered(row['prompt'], answers[number]), answered(row['prompt'], answers[number - 1])][: 1 + kl]
        samples.append(
            Sample(
                [token for part in parts for token in part.input_ids], [label for part in parts for label in part.labels],
                lengths=[len(part) for part in parts], label=row['label'], source=f'batch.json:{number}',
            )  # fmt: skip
        )
    return samples


def step(objective, policy, reference, *processes, padded=False):
    """(mean loss, gradient, metric sums) of one optimizer step; every process has a list of micro-batches.

    What a process hands to `gather` does not depend on what it gets back, so a first pass records it.
    """

    def prepared(gather_of):
        batches = [[collated(lambda s: objective.collate(s, padded), list(m), fill) for m, fill in process] for process in processes]
        for rank, process in enumerate(batches):
            with torch.no_grad():
                objective.prepare(process, actors, gather_of(rank))
        return batches

    actors = Actors(ModelActor(policy), ModelActor(reference) if reference is not None else None)
    said = [[] for _ in processes]
    prepared(lambda rank: lambda value: said[rank].append(value) or value)
    calls = [iter([torch.cat(values) for values in zip(*said, strict=True)]) for _ in processes]
    batches = [batch for process in prepared(lambda rank: lambda value: next(calls[rank])) for batch in process]
    policy.zero_grad(set_to_none=True)
    weight, total, metrics = sum(objective.weight(batch) for batch in batches), 0.0, {}
    for batch in batches:
        loss, filler = objective.loss(batch, actors), batch.extra.get('filler')
        (loss.sum * (0.0 if filler else 1.0) / weight).backward()
        if filler:
            continue
        total += loss.sum.item() / weight
        for name, values in loss.metrics.items():
            metrics.setdefault(name, []).append(values)
    gradient = torch.cat([p.grad.reshape(-1) for p in policy.parameters()])
    means = {name: torch.cat(values).mean().item() for name, values in metrics.items() if torch.cat(values).numel()}
    return total, gradient, means


@pytest.fixture(scope='module')
def models():
    made = tiny_model(), tiny_model(reference=True).requires_grad_(False)
    for model in made:
        use_segments(model)
    return made


def same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    torch.testing.assert_close(one[1], other[1], rtol=1e-4, atol=1e-6)
    assert one[2] == pytest.approx(other[2], rel=1e-4, abs=1e-5)


# ---- numbers


@pytest.mark.parametrize('label', golden('kto'))
def test_loss_gradient_and_metrics_are_those_of_trl(models, label):
    """TRL takes z₀ over one micro-batch of every process, the paper over the batch, we over the optimizer step: the same here."""
    known = golden('kto')[label]
    settings = dict(known['settings'])
    away, keep = settings.pop('away'), settings.pop('keep')
    policy, reference = (copy.deepcopy(model).requires_grad_() for model in (reversed(models) if away else models))
    objective = kto(**{**settings, 'loss_type': [settings.get('loss_type', 'kto')]})
    loss, gradient, metrics = step(objective, policy, reference, [(judged_samples(keep, objective.kl), False)])
    assert loss == pytest.approx(known['loss'], rel=1e-5)
    assert gradient.double().norm().item() == pytest.approx(known['grad_norm'], rel=1e-5)
    wanted = {name: value for name, value in known['metrics'].items() if objective.kl or name != 'kl'}
    assert metrics == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert all(weight.grad is None for weight in reference.parameters())


def test_without_the_kl_term_it_is_apo_zero_unpaired(models):
    known = golden('kto')['apo_zero_unpaired']
    loss, gradient, metrics = step(kto(calculate_KL=False), *models, [(judged_samples(kl=False), False)])
    assert loss == pytest.approx(known['loss'], rel=1e-5) and 'kl' not in metrics
    assert gradient.double().norm().item() == pytest.approx(known['grad_norm'], rel=1e-5)


class Fixed:
    """An actor whose every labelled token has a log-probability of its own."""

    def __init__(self, *values):
        self.queue = [torch.tensor(value, requires_grad=True) for value in values]
        self.given = list(self.queue)

    def answer_logps(self, batch, want=()):
        place = batch.extra['answers']
        return AnswerTokens(self.queue.pop(0), place['segment'], place['index'], torch.zeros(len(place['index']), dtype=torch.bool))


def judged(desirable):
    """Two labelled tokens, and a mismatched segment with one."""
    return Sample([5, 6, 7, 5, 8], [-100, 6, 7, -100, 8], lengths=[3, 2], label=desirable)


def test_a_step_worked_by_hand():
    """β = ½. Rows: r = 2 (desirable, weight 1.5) and -1 (undesirable, weight ½). Mismatched: r = 3 and -1, so z₀ = 1.

    1.5 (1 - σ(½ (2 - 1))) + ½ (1 - σ(½ (1 + 1))) = 1.5 · 0.37754067 + ½ · 0.26894142 = 0.70078172
    d/dr: -½ · 1.5 · σ'(½) = -0.17625279 and ½ · ½ · σ'(1) = 0.04915298
    """
    objective = kto(beta=0.5, desirable_weight=1.5, undesirable_weight=0.5)
    batch = objective.collate([judged(True), judged(False)])
    policy, reference = Fixed([-1.0, -2.0], [-1.0, -1.0, -3.0, -2.0]), Fixed([-4.0, -1.0], [-2.0, -2.0, -2.0, -2.0])
    actors = Actors(policy, reference)
    objective.prepare([batch], actors, lambda value: value)
    assert batch.extra['z0'].item() == 1.0
    loss = objective.loss(batch, actors)
    assert loss.sum.item() == pytest.approx(0.70078172, abs=1e-7)
    loss.sum.backward()
    assert policy.given[1].grad.tolist() == pytest.approx([-0.17625279, -0.17625279, 0.04915298, 0.04915298], abs=1e-7)
    assert {name: values.tolist() for name, values in loss.metrics.items()} == {
        'rewards/chosen': [1.0], 'rewards/rejected': [-0.5], 'logps/chosen': [-2.0], 'logps/rejected': [-5.0],
        'rewards/margins': [2.0, 1.0], 'kl': [1.0, 1.0],
    }  # fmt: skip
    assert loss.metrics['rewards/margins'].mean().item() == 1.0 - -0.5
    assert objective.weight(batch) == 2


def test_no_gradient_goes_through_z0_or_the_reference(models):
    policy, reference = models[0], copy.deepcopy(models[1]).requires_grad_()
    objective = kto()
    batch = objective.collate(judged_samples())
    actors = Actors(ModelActor(policy), ModelActor(reference))
    with torch.no_grad():
        objective.prepare([batch], actors, lambda value: value)
    assert not batch.extra['z0'].requires_grad
    forwarded = []
    handle = policy.register_forward_pre_hook(lambda m, a, k: forwarded.append(k['input_ids'].numel()), with_kwargs=True)
    with handle:
        objective.loss(batch, actors).sum.backward()
    assert forwarded == [sum(sample.lengths[0] for sample in judged_samples())], 'the loss runs no mismatched token'
    assert all(weight.grad is None for weight in reference.parameters())


def test_a_negative_estimate_counts_as_zero():
    objective = kto()
    batch = objective.collate([judged(True), judged(False)])
    actors = Actors(Fixed([-3.0, -3.0]), Fixed([-1.0, -2.0]))
    objective.prepare([batch], actors, lambda value: value)
    assert batch.extra['z0'].item() == 0.0


def test_weights_of_tokens_count():
    objective = kto(calculate_KL=False)
    sample = Sample([5, 6, 7], [-100, 6, 7], [0.0, 0.5, 2.0], label=True)
    batch = objective.collate([sample])
    actors = Actors(Fixed([-1.0, -2.0]), Fixed([-2.0, -3.0]))
    objective.prepare([batch], actors, lambda value: value)
    assert objective.loss(batch, actors).outputs['log_ratios'].tolist() == [2.5]


# ---- what must not change it


@pytest.mark.parametrize('settings', [{}, {'calculate_KL': False}, {'desirable_weight': 1.5, 'undesirable_weight': 0.5}], ids=str)
def test_micro_batches_processes_padding_order_and_fillers_change_nothing(models, settings):
    policy, reference = (copy.deepcopy(model).requires_grad_() for model in reversed(models))  # z₀ > 0
    objective = kto(**settings)
    samples = (judged_samples(kl=objective.kl) * 2)[:8]
    whole = step(objective, policy, reference, [(samples, False)])
    assert ('kl' in whole[2]) == objective.kl and (not objective.kl or whole[2]['kl'] > 0.1)
    alone = [([sample], False) for sample in samples]
    same(whole, step(objective, policy, reference, alone))
    same(whole, step(objective, policy, reference, alone[:4], alone[4:]))
    same(whole, step(objective, policy, reference, [(samples[:3], False), (samples[6:], False)], [(samples[3:6], False), (samples[:1], True)]))
    same(whole, step(objective, policy, reference, [(samples, False)], padded=True))
    same(whole, step(objective, policy, reference, [(samples[::-1], False)]))


def test_stored_log_probabilities_of_the_reference_take_its_place(models):
    objective, samples = kto(), judged_samples()
    whole = step(objective, *models, [(samples[:2], False), (samples[2:], False)])
    from swift.objectives import collate

    for sample in samples:
        with torch.no_grad():
            stored = ModelActor(models[1]).answer_logps(collate.flat([sample])).logps
        sample.extra = {'reference_logps': stored.tolist()}
    same(whole, step(objective, models[0], None, [(samples[:2], False), (samples[2:], False)]))
    lone = Sample(samples[0].input_ids[:8], samples[0].labels[:8], label=True, extra={'reference_logps': stored.tolist()[:3]})
    lone.labels = [-100] * 5 + lone.input_ids[5:]
    assert math.isfinite(step(objective, models[0], None, [([lone], False)])[0])


def test_an_evaluation_does_not_depend_on_its_batches(models):
    policy, reference = models[1], models[0]
    objective, samples = kto(), judged_samples()
    actors = Actors(ModelActor(policy), ModelActor(reference))

    def measured(*parts):
        found = {}
        for part in parts:
            batch = objective.collate(part)
            with torch.no_grad():
                objective.prepare([batch], actors, lambda value: value)
                for name, values in objective.loss(batch, actors).outputs.items():
                    found.setdefault(name, []).append(values)
        return objective.measure({name: torch.cat(values) for name, values in found.items()})

    whole, known = measured(samples), golden('kto')['kto-away']
    assert whole['loss'] == pytest.approx(known['loss'], rel=1e-5)
    assert whole['kl'] == pytest.approx(known['metrics']['kl'], rel=1e-5)
    assert whole['rewards/margins'] == pytest.approx(known['metrics']['rewards/margins'], rel=1e-5)
    assert whole == pytest.approx(measured(samples[:1], samples[3:], samples[1:3]), rel=1e-5)
    assert measured() == {}


def test_accuracy_counts_pairs_in_which_the_desirable_row_is_ahead():
    """Rewards of desirable rows 2, 1, 0; of undesirable ones 1, -1: ahead in 2 + 1 + 1 of 6 pairs, a tie is none."""
    ratios, desirable = torch.tensor([2.0, 1.0, 1.0, 0.0, -1.0]), torch.tensor([True, False, True, True, False])
    found = kto(calculate_KL=False).measure({'log_ratios': ratios, 'desirable': desirable})
    assert found == pytest.approx({'rewards/margins': 0.1 * (1 - 0), 'rewards/accuracies': 4 / 6})
    assert kto(calculate_KL=False).measure({'log_ratios': ratios[:1], 'desirable': desirable[:1]}) == {}


def test_a_row_without_partner_takes_no_part_in_the_estimate(models):
    policy, reference = (copy.deepcopy(model).requires_grad_() for model in reversed(models))
    objective, samples = kto(), judged_samples()
    lone = judged_samples(kl=False)[0]
    batches = [objective.collate([lone]), objective.collate(samples[1:])]
    actors = Actors(ModelActor(policy), ModelActor(reference))
    with torch.no_grad():
        objective.prepare(batches, actors, lambda value: value)
    total, count = batches[1].extra['divergence'].tolist()
    assert count == len(samples) - 1 and batches[0].extra['divergence'].tolist() == [0.0, 0.0]
    assert batches[0].extra['z0'].item() == pytest.approx(total / count, rel=1e-6)


def test_every_tensor_moves_with_its_batch():
    moved = kto().collate(judged_samples()).to('meta')
    assert moved.extra['mismatched'].input_ids.device.type == 'meta' and moved.extra['rows']['chosen'].device.type == 'meta'
    assert moved.extra['mismatched'].lengths.device.type == 'cpu'


# ---- rows


@pytest.fixture(scope='module')
def template():
    return get_template(build_tokenizer())


def talk(question, answer, **more):
    return Conversation([{'role': 'user', 'content': question}, {'role': 'assistant', 'content': answer}], source='f:1', **more)


def segments(template, sample):
    """Text of every segment, and its labelled part."""
    start, found = 0, []
    for size in sample.segment_lengths:
        ids, labels = sample.input_ids[start : start + size], sample.labels[start : start + size]
        found.append((template.tokenizer.decode(ids), template.tokenizer.decode([t for t in labels if t != IGNORE_INDEX])))
        start += size
    return found


@pytest.mark.parametrize(('label', 'wanted'), [
    (True, True), (False, False), (1, True), (0, False), (1.0, True), ('true', True), ('False', False), (' Desirable ', True),
    ('undesirable', False), ('1', True), ('0', False), ('yes', True), ('rejected', False),
])  # fmt: skip
def test_labels_in_every_form(template, label, wanted):
    ((sample,),) = kto().encode_batch([talk('a', 'b', label=label)], template)
    assert sample.label is wanted


@pytest.mark.parametrize('label', [2, -1, 0.5, 'maybe', '', [True], {'a': 1}, float('nan')], ids=str)
def test_another_label_is_refused_with_what_is_accepted(template, label):
    good, bad = kto().encode_batch([talk('a', 'b', label=True), talk('a', 'b', label=label)], template)
    assert isinstance(bad, RowError) and not isinstance(good, RowError)
    assert 'f:1' in str(bad) and repr(label) in str(bad) and 'true, false, 1, 0' in str(bad)


def test_a_row_without_label_says_what_it_has_and_what_it_needs(template):
    (error,) = kto().encode_batch([talk('a', 'b', columns={'mood': 'good'})], template)
    assert str(error) == (
        'f:1: the row has messages, mood, but no label; it is read from label (true or false), or from chosen and rejected'
    )


def test_a_preference_row_is_one_desirable_and_the_rejected_ones_undesirable(template):
    def answer(text):
        return talk('a', text).messages

    row = talk('a', 'best', rejected=answer('bad'), negatives=[answer('worst')])
    other = talk('c', 'fine', label=True)
    first, second = kto().encode_batch([row, other], template)
    assert [sample.label for sample in first] == [True, False, False] and [sample.label for sample in second] == [True]
    assert [segments(template, sample)[0][1] for sample in first] == ['best<|im_end|>', 'bad<|im_end|>', 'worst<|im_end|>']
    (error,) = kto().encode_batch([talk('a', 'best', rejected=answer('bad'), label=True)], template)
    assert 'judged twice' in str(error)


def test_a_mismatched_segment_is_the_prompt_with_the_answer_of_another_row(template):
    rows = [talk('ask one', 'say one', label=True), talk('ask two', 'say two', label=False), talk('ask three', 'x', label='??')]
    first, second, bad = kto().encode_batch(rows, template)
    assert isinstance(bad, RowError)
    (own, crossed), (_, back) = segments(template, first[0]), segments(template, second[0])
    assert 'ask one' in own[0] and own[1] == 'say one<|im_end|>'
    assert 'ask one' in crossed[0] and 'ask two' not in crossed[0] and crossed[1] == 'say two<|im_end|>'
    assert 'ask two' in back[0] and back[1] == 'say one<|im_end|>'


def test_every_answer_is_used_once_and_meets_another_prompt(template):
    """Preference rows: both answers to a prompt stand beside each other."""
    rows = [talk(f'ask {n}', f'good {n}', rejected=talk(f'ask {n}', f'poor {n}').messages) for n in range(5)]
    samples = [sample for found in kto().encode_batch(rows, template) for sample in found]
    crossed = [segments(template, sample)[1] for sample in samples]
    assert sorted(said for _, said in crossed) == sorted(segments(template, sample)[0][1] for sample in samples)
    for text, said in crossed:
        asked = int(text.split('ask ')[1].split('<')[0])
        assert int(said.split(' ')[1].split('<')[0]) != asked


def test_a_mismatched_segment_keeps_to_max_length():
    long, short = Sample(list(range(10, 30)), [-100] * 15 + list(range(25, 30))), Sample(list(range(40, 60)), [-100] + list(range(41, 60)))
    (first,), (second,) = mismatched([[long], [short]], 20)
    assert first.lengths == [20, 20] and first.input_ids[20:] == [*range(10, 25), *range(41, 46)]
    assert first.labels[20:] == [-100] * 15 + [*range(41, 46)]
    assert second.lengths == [20, 6] and second.input_ids[20:] == [40, *range(25, 30)]


def test_weights_go_with_their_answers():
    plain, weighted = Sample([5, 6, 7], [-100, 6, 7]), Sample([8, 9], [-100, 9], [0.0, 0.5])
    (first,), (second,) = mismatched([[plain], [weighted]], None)
    assert first.weights == [1.0, 1.0, 1.0, 0.0, 0.5] and second.weights == [0.0, 0.5, 1.0, 1.0, 1.0]


def test_a_single_row_and_a_loss_without_kl_have_one_segment(template):
    rows = [talk('a', 'b', label=True), talk('c', 'd', label=False)]
    assert kto().encode_batch(rows[:1], template)[0][0].lengths is None
    for objective in (kto(calculate_KL=False), kto(loss_type=['apo_zero_unpaired'])):
        assert [found[0].lengths for found in objective.encode_batch(rows, template)] == [None, None]
        assert objective.fingerprint != kto().fingerprint


def test_samples_survive_the_token_store(tmp_path, template):
    rows = [talk('a', 'b', label=True), talk('c', 'd', label=False)]
    samples = [sample for found in kto().encode_batch(rows, template) for sample in found]
    write_store(tmp_path / 'store', [to_chunk(samples)], lambda: {'good': 2, 'bad': 0, 'skipped': 0, 'long': 0, 'first': []})
    store = TokenStore(tmp_path / 'store')
    one, other = kto().collate(samples), kto().collate([store[0], store[1]])
    for batch, again in ((one, other), (one.extra['mismatched'], other.extra['mismatched'])):
        assert batch.input_ids.tolist() == again.input_ids.tolist() and batch.labels.tolist() == again.labels.tolist()
    assert one.extra['desirable'].tolist() == other.extra['desirable'].tolist() == [True, False]


def test_flags_that_contradict_are_refused():
    with pytest.raises(SwiftError, match='apo_zero_unpaired has no KL term'):
        kto(loss_type=['apo_zero_unpaired'], calculate_KL=True)
    with pytest.raises(SwiftError, match="did you mean 'apo_zero_unpaired'"):
        kto(loss_type=['apo_zero_unpair'])
    with pytest.raises(SwiftError, match='kto takes one loss'):
        kto(loss_type=['kto', 'apo_zero_unpaired'])
    with pytest.raises(SwiftError, match='--loss_kwargs: kto takes none'):
        kto(loss_kwargs={'a': 1})
