"""Pairs: how rows become samples, and the laws that every loss of pairs keeps."""

from types import SimpleNamespace

import pytest
import torch

from swift.arguments.model import ModelArgs
from swift.core.errors import RowError, RowTooLong
from swift.core.types import Actors, Conversation, Sample
from swift.model.load import load_processor
from swift.objectives.preference import encode_pairs, joined
from swift.template import get_template
from swift.trainers.attention import use_segments
from swift.trainers.forward import Plan
from tests.helpers.bench import FILLER, Bench, run_step
from tests.helpers.tiny import build_tokenizer
from tests.objectives.trl.batch import pair_samples, pairs, tiny_model
from tests.objectives.trl.ours import actors, objective, run
from tests.objectives.trl.pair_cases import CASES

# ---- rows


@pytest.fixture(scope='module')
def template():
    return get_template(build_tokenizer(), loss_scale='last_round')


def said(*turns, **extra):
    return [{'role': 'user' if number % 2 == 0 else 'assistant', 'content': text, **extra} for number, text in enumerate(turns)]


def talk(chosen='Fine, thanks.', *rejected, **fields):
    prompt = ('Hello', 'Hi', 'How are you?')
    answers = [said(*prompt, text) for text in rejected or ('Go away',)]
    return Conversation(said(*prompt, chosen), rejected=answers[0], negatives=answers[1:] or None, source='rows.jsonl:3', **fields)


def trained(template, sample, segment):
    """Text of the labelled tokens of a segment."""
    start = sum(sample.lengths[:segment])
    labels = sample.labels[start : start + sample.lengths[segment]]
    return template.tokenizer.decode([label for label in labels if label != -100])


def test_a_row_becomes_one_sample_with_its_last_answers_trained(template):
    ((sample,),) = encode_pairs([talk(columns={'margin': '1.5', 'mood': 'x'}, channel='a')], template)
    assert len(sample.lengths) == 2 and sum(sample.lengths) == len(sample.input_ids) == len(sample.labels)
    assert trained(template, sample, 0) == 'Fine, thanks.<|im_end|>' and trained(template, sample, 1) == 'Go away<|im_end|>'
    assert sample.extra == {'margin': 1.5} and sample.channel == 'a' and sample.source == 'rows.jsonl:3'
    alone = template.encode(Conversation(talk().messages))[0]
    assert list(sample.input_ids[: sample.lengths[0]]) == list(alone.input_ids)
    assert list(sample.labels[: sample.lengths[0]]) == list(alone.labels)


def test_every_rejected_answer_makes_a_sample(template):
    (samples,) = encode_pairs([talk('Fine', 'Go', 'Shut up', 'No')], template)
    assert [trained(template, sample, 1) for sample in samples] == ['Go<|im_end|>', 'Shut up<|im_end|>', 'No<|im_end|>']
    assert all(trained(template, sample, 0) == 'Fine<|im_end|>' for sample in samples)


def test_good_rows_around_bad_ones_keep_their_places(template):
    bad = Conversation(said('a', 'b'), columns={'mood': 'good'}, source='rows.jsonl:2')
    first, error, last = encode_pairs([talk('one'), bad, talk('two')], template)
    assert trained(template, first[0], 0) == 'one<|im_end|>' and trained(template, last[0], 0) == 'two<|im_end|>'
    assert isinstance(error, RowError) and error.source == 'rows.jsonl:2'
    assert 'messages, mood' in str(error) and 'rejected, rejected_response or rejected_messages' in str(error)


def test_a_margin_that_is_no_number_names_row_and_column(template):
    (error,) = encode_pairs([talk(columns={'margin': 'large'})], template)
    assert isinstance(error, RowError) and str(error).startswith('rows.jsonl:3: margin must be a number')


def test_every_answer_keeps_what_it_shows():
    chosen, rejected, text = (Sample([1, 2], [-100, 2], media=media) for media in ([{'text': 'a'}], [{'text': 'b'}], None))
    assert joined([chosen, rejected], talk()).media == [{'text': 'a'}, {'text': 'b'}]
    assert joined([text, rejected], talk()).media == [None, {'text': 'b'}]
    assert joined([text, text], talk()).media is None


@pytest.mark.parametrize('side', ['chosen', 'rejected', 'second rejected'])
def test_one_answer_too_long_makes_the_row_too_long(side):
    short = get_template(build_tokenizer(), max_length=60, loss_scale='last_round')
    long = 'very ' * 80
    row = {'chosen': talk(long), 'rejected': talk('a', long), 'second rejected': talk('a', 'b', long)}[side]
    (error,) = encode_pairs([row], short)
    assert isinstance(error, RowTooLong) and error.source == 'rows.jsonl:3' and 'max_length 60' in str(error)


def test_tools_and_calls_are_in_both_answers():
    tokenizer = load_processor(ModelArgs(model='tiny'))
    template = get_template(tokenizer, loss_scale='last_round')
    tools = [{'type': 'function', 'function': {'name': 'add', 'description': 'Adds.', 'parameters': {
        'type': 'object', 'properties': {'a': {'type': 'integer'}}, 'required': ['a']}}}]  # fmt: skip
    begin = [
        {'role': 'user', 'content': 'What is 1 + 2?'},
        {'role': 'assistant', 'content': '', 'tool_calls': [{'type': 'function', 'function': {'name': 'add', 'arguments': {'a': 1}}}]},
        {'role': 'tool', 'content': '3'},
    ]
    right, wrong = ([*begin, {'role': 'assistant', 'content': text}] for text in ('It is 3.', 'It is 4.'))
    ((sample,),) = encode_pairs([Conversation(right, tools=tools, rejected=wrong)], template)
    for segment, answer in enumerate(('3', '4')):
        start = sum(sample.lengths[:segment])
        text = tokenizer.decode(sample.input_ids[start : start + sample.lengths[segment]])
        assert text.count('add') >= 2 and 'Adds.' in text, 'the schema and the call'
        assert answer in trained(template, sample, segment) and 'What' not in trained(template, sample, segment)


# ---- laws

LAWS = {label: CASES[label] for label in CASES if not label.endswith(('beta 0.5', 'by default', 'alpha 1.0', '_kl', 'js_divergence', 'prompts'))}
LAWS |= {
    'dpo rpo': ('dpo', dict(rpo_alpha=0.7)),
    'dpo reference free': ('dpo', dict(reference_free=True)),
    'dpo bco and aot': ('dpo', dict(loss_type=['bco_pair', 'aot', 'aot_unpaired'], loss_weights=[1.0, 0.5, 2.0], label_smoothing=0.1)),
}


def same(one, other):
    assert one['loss'] == pytest.approx(other['loss'], rel=1e-5)
    assert (one['gradient'] - other['gradient']).abs().max() < 1e-4 * one['gradient'].abs().max()
    assert one['metrics'].keys() == other['metrics'].keys()
    for name, values in one['metrics'].items():
        torch.testing.assert_close(values.sort().values, other['metrics'][name].sort().values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('label', LAWS)
def test_split_order_and_padding_change_nothing(label):
    method, settings = LAWS[label]
    made, samples = objective(method, **settings), pair_samples()
    whole = run(made, [samples])
    assert whole['loss'] > 0 and whole['gradient'].abs().max() > 0
    same(whole, run(made, [samples], prepared=False))
    same(whole, run(made, [samples[:1], samples[1:6], samples[6:]]))
    same(whole, run(made, [samples[::-1]]))
    same(whole, run(made, [samples[::-2], samples[-2::-2]], padded=True))


@pytest.mark.parametrize('loss', ['aot', 'aot_unpaired', 'bco_pair', 'sft'])
def test_these_losses_need_their_look_at_the_whole_step(loss):
    made, samples = objective('dpo', loss_type=[loss]), pair_samples()
    whole = run(made, [samples])
    alone = run(made, [samples[:3], samples[3:]], prepared=False)
    assert abs(whole['loss'] - alone['loss']) > 1e-4 * whole['loss']


@pytest.mark.parametrize('label', ['dpo sft', 'dpo bco and aot', 'dpo three losses ld_alpha', 'cpo-simpo', 'orpo'])
def test_processes_and_fillers_change_nothing(label):
    method, settings = LAWS[label]
    policy, reference = tiny_model(), tiny_model(reference=True)
    for model in (policy, reference):
        use_segments(model)
    bench = Bench(objective(method, **settings), policy, reference, Plan(), pair_samples())
    whole = run_step(bench, [bench.samples])
    for processes in (
        ([bench.samples[:3]], [bench.samples[3:]]),
        ([bench.samples[:3], bench.samples[7:]], [bench.samples[3:7], FILLER]),
        ([bench.samples[:1], bench.samples[1:]], [FILLER, FILLER]),
    ):
        found = run_step(bench, *processes)
        assert found.loss == pytest.approx(whole.loss, rel=1e-5)
        assert (found.gradient - whole.gradient).abs().max() < 1e-4 * whole.gradient.abs().max()
        assert found.metrics == pytest.approx(whole.metrics, rel=1e-4, abs=1e-4)


def twins():
    """Pairs whose rejected answer is the chosen one."""
    return pair_samples([{**row, 'rejected': row['chosen']} for row in pairs()])


BY_REWARD = ('nca_pair', 'bco_pair', 'sppo_hard')
"""Losses of two rewards instead of their difference: equal answers cancel where the policy is the reference."""


@pytest.mark.parametrize('label', [label for label, (method, _) in LAWS.items() if 'sft' not in label and 'apo_down' not in label
                                   and not label.startswith(('orpo', 'cpo-simpo')) and 'three' not in label and 'rpo' not in label])  # fmt: skip
def test_equal_answers_teach_no_preference(label):
    method, settings = LAWS[label]
    settings = {**settings, 'cpo_alpha': 0.0} if method != 'dpo' else settings
    who = actors()
    if any(loss in label for loss in (*BY_REWARD, 'bco')):
        who = Actors(who.policy, who.policy)
    made = objective(method, **settings)
    scale = run(made, [pair_samples()], who=who)['gradient'].abs().max()
    assert run(made, [twins()], who=who)['gradient'].abs().max() < 1e-5 * scale


@pytest.mark.parametrize('label', ['dpo sigmoid', 'dpo sigmoid ld_alpha 0.5', 'dpo bco and aot'])
def test_stored_reference_is_the_computed_one(label):
    method, settings = LAWS[label]
    made, samples = objective(method, **settings), pair_samples()
    computed = run(made, [samples[:5], samples[5:]])
    for sample in samples:
        sample.extra = {**sample.extra, 'reference_logps': actors().reference.answer_logps(made.collate([sample])).logps.tolist()}
    nobody = SimpleNamespace(answer_logps=lambda *_: pytest.fail('the reference was asked'))
    same(computed, run(made, [samples[:5], samples[5:]], who=Actors(actors().policy, nobody)))


def test_weights_of_tokens_weigh_their_log_ratios_and_weight_0_is_no_label():
    made = objective('dpo', loss_type=['sigmoid', 'sft'])
    samples = pair_samples()
    for sample in samples:
        sample.weights = [1.0] * len(sample)
    plain = run(made, [samples])
    same(plain, run(made, [pair_samples()]))
    half = pair_samples()
    for sample in half:
        sample.weights = [0.5] * len(sample)
    found = run(made, [half])
    for name in ('rewards/chosen', 'logps/rejected', 'nll_loss'):
        torch.testing.assert_close(found['metrics'][name], plain['metrics'][name] / 2)


def test_margins_reach_the_batch_where_a_row_has_one():
    made, samples = objective('dpo'), pair_samples()
    assert made.collate(samples).extra['margin'].tolist() == [row['margin'] for row in pairs()]
    samples[1].extra = None
    assert made.collate(samples[:2]).extra['margin'].tolist() == [1.5, 0.0]
    assert 'margin' not in made.collate(samples[1:2]).extra
