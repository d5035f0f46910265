"""Requests that share work: adapters in one forward, beginnings of prompts that are read once. Answers stay those of each alone."""

import copy
import random
from contextlib import contextmanager

import pytest
import torch

from swift.core.errors import SwiftError
from swift.core.types import Prompt
from swift.infer_engine import AdapterRequest, RequestConfig, TransformersEngine
from swift.infer_engine.prefixes import Prefixes

RNG = random.Random(0)
SHORT = [Prompt([RNG.randrange(3, 640) for _ in range(length)]) for length in (5, 9, 14, 3, 30, 11)]
SYSTEM = [RNG.randrange(3, 640) for _ in range(200)]
CONFIG = RequestConfig(max_tokens=10, temperature=0, logprobs=True, ignore_eos=True)


@contextmanager
def forwards(model):
    """Tokens of each forward that happens meanwhile."""
    seen = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
    yield seen
    handle.remove()


def ask(engine, prompts, adapters=None, config=CONFIG):
    found = engine.generate(prompts, [config] * len(prompts), adapters or [None] * len(prompts))
    return [choice for choices in found for choice in choices]


def assert_same(found, wanted):
    assert [c.token_ids for c in found] == [c.token_ids for c in wanted]
    for one, other in zip(found, wanted, strict=True):
        gaps = [abs(a['logprob'] - b['logprob']) for a, b in zip(one.logprobs, other.logprobs, strict=True)]
        assert max(gaps) < 1e-5


def make_adapter(model, path, seed, **settings):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    settings = {'r': 4, 'target_modules': ['q_proj', 'v_proj', 'down_proj'], **settings}
    peft = get_peft_model(copy.deepcopy(model), LoraConfig(**settings))
    with torch.no_grad():
        for name, weight in peft.named_parameters():
            if 'lora_' in name and 'magnitude' not in name:
                weight.normal_(0, 0.2)
            elif 'modules_to_save' in name:
                weight.mul_(1.5)
    peft.save_pretrained(str(path), save_embedding_layers=False)
    return AdapterRequest(f'{path.name}', str(path))


@pytest.fixture(scope='module')
def adapters(model, tmp_path_factory):
    root = tmp_path_factory.mktemp('adapters')
    wide = make_adapter(model, root / 'b', 2, r=8, lora_alpha=20, use_rslora=True, target_modules=['q_proj', 'up_proj', 'lm_head'])
    return [None, make_adapter(model, root / 'a', 1), wide]


@pytest.fixture
def fresh(model, template):
    """Engines of copies of the model, since adapters stay on it."""
    return lambda **settings: TransformersEngine(copy.deepcopy(model), template=template, **settings)


def test_rows_of_different_adapters_share_forwards(fresh, adapters):
    mixed = [(prompt, adapter) for prompt in SHORT for adapter in adapters]
    alone = [fresh(), fresh(), fresh()]
    wanted = [ask(alone[adapters.index(adapter)], [prompt], [adapter])[0] for prompt, adapter in mixed]
    assert len({tuple(c.token_ids) for c in wanted}) > 12
    engine = fresh()
    ask(engine, SHORT[:3], adapters)  # loads and checks
    with forwards(engine.model) as seen:
        found = ask(engine, *map(list, zip(*mixed, strict=True)))
    assert_same(found, wanted)
    assert len(seen) == 10  # as many forwards as one answer has tokens
    assert seen[0] == 3 * sum(len(p.input_ids) for p in SHORT)
    assert seen[1:] == [18] * 9


def test_one_prompt_on_all_adapters_is_read_once_for_each(fresh, adapters):
    engine = fresh()
    found = ask(engine, [SHORT[4]] * 6, adapters * 2)
    assert [c.token_ids for c in found[:3]] == [c.token_ids for c in found[3:]]
    assert len({tuple(c.token_ids) for c in found[:3]}) == 3
    with forwards(engine.model) as seen:
        ask(engine, [SHORT[4]] * 6, adapters * 2)
    assert seen[0] == 90


def test_an_adapter_comes_while_others_answer(fresh, adapters):
    wanted = [ask(fresh(), [prompt], [adapter], RequestConfig(max_tokens=60, temperature=0, logprobs=True, ignore_eos=True))[0]
              for prompt, adapter in zip(SHORT, adapters, strict=False)]  # fmt: skip
    engine = fresh()
    config = RequestConfig(max_tokens=60, temperature=0, logprobs=True, ignore_eos=True)
    streams = [engine.stream(SHORT[0], config, None)]
    next(streams[0])
    for prompt, adapter in zip(SHORT[1:], adapters[1:], strict=False):
        streams.append(engine.stream(prompt, config, adapter))
        next(streams[-1])
    assert_same([list(stream)[-1].completion for stream in streams], wanted)


def test_a_default_adapter_shares_too_and_training_goes_on(model, template, adapters):
    engine = TransformersEngine(copy.deepcopy(model), adapters[1].path, template=template)
    frozen = [p for n, p in engine.model.named_parameters() if 'lora_A' in n]
    for parameter in engine.model.parameters():
        parameter.requires_grad_(False)
    frozen[0].requires_grad_(True)
    found = ask(engine, SHORT[:2], [None, adapters[2]])
    assert [p.requires_grad for n, p in engine.model.named_parameters() if 'lora_A.default' in n] == [True] + [False] * (len(frozen) - 1)
    wanted = [ask(TransformersEngine(copy.deepcopy(model), template=template), SHORT[i : i + 1], adapters[i + 1 : i + 2])[0] for i in (0, 1)]
    assert_same(found, wanted)
    assert engine.model.active_adapter == 'default'


def test_adapters_may_have_any_name(fresh, adapters):
    wanted = ask(fresh(), SHORT[:1], adapters[1:2])
    engine = fresh()
    for name in ('1', 'v1.0', 'keys', 'layers', 'my lora_A', '词'):
        assert_same(ask(engine, SHORT[:1], [AdapterRequest(name, adapters[1].path)]), wanted)
    with pytest.raises(SwiftError, match="adapter 'v1.0' is"):
        ask(engine, SHORT[:1], [AdapterRequest('v1.0', adapters[2].path)])


@pytest.mark.parametrize('settings', [{'use_dora': True}, {'modules_to_save': ['norm']}, {'target_modules': ['embed_tokens']}], ids=str)
def test_adapters_that_do_more_keep_a_lane_of_their_own(fresh, model, adapters, settings, tmp_path):
    special = make_adapter(model, tmp_path / 'special', 3, **settings)
    wanted = [ask(fresh(), SHORT[i : i + 1], [adapter])[0] for i, adapter in enumerate([special, adapters[1], None])]
    engine = fresh()
    assert_same(ask(engine, SHORT[:3], [special, adapters[1], None]), wanted)
    assert [engine._wardrobe.mixes(name) for name in ('special', 'a', None)] == [False, True, True]
    assert len({tuple(c.token_ids) for c in ask(engine, SHORT[:1] * 3, [special, adapters[1], None])}) == 3


def talks(count):
    """Prompts that begin with the same 200 tokens."""
    return [Prompt(SYSTEM + [RNG.randrange(3, 640) for _ in range(5 + i)]) for i in range(count)]


def test_a_shared_beginning_is_read_once(fresh):
    prompts = talks(6)
    wanted = ask(fresh(prefix_cache_tokens=0), prompts)
    engine = fresh()
    ask(engine, SHORT[:1])
    with forwards(engine.model) as seen:
        found = ask(engine, prompts)
    assert_same(found, wanted)
    ends = sum(len(p.input_ids) - 200 for p in prompts)
    assert sum(seen) == 200 + ends + 6 * 9  # every other token of an answer
    assert engine._prefixes.reused == 5 * 200


def test_later_calls_know_it_where_the_weights_stay(fresh):
    prompts = talks(3)
    engine, passing = fresh(weights_stay=True), fresh()
    wanted = ask(passing, prompts)
    assert_same(ask(engine, prompts[:1]), wanted[:1])
    with forwards(engine.model) as seen:
        assert_same(ask(engine, prompts[1:2]), wanted[1:2])
    assert seen[0] == 6
    answer = wanted[1].token_ids
    with forwards(engine.model) as seen:  # another turn: the answer was kept too, but for its last token
        longer = [Prompt([*prompts[1].input_ids, *answer, 7, 8])]
        assert_same(ask(engine, longer), ask(passing, longer))
    assert seen[0] == 3
    with torch.no_grad():  # weights that change nonetheless are seen
        for each in (engine, passing):
            each.model.model.layers[0].self_attn.k_proj.weight.mul_(0.5)
    assert_same(ask(engine, prompts), ask(passing, prompts))
    with forwards(passing.model) as seen:
        ask(passing, prompts[:1])
    assert seen[0] == 205


def test_each_adapter_has_its_own_beginnings(fresh, adapters):
    prompts = [prompt for prompt in talks(2) for _ in adapters]
    wanted = [ask(fresh(prefix_cache_tokens=0), [prompt], [adapter])[0] for prompt, adapter in zip(prompts, adapters * 2, strict=True)]
    engine = fresh(weights_stay=True)
    for _ in range(2):
        assert_same(ask(engine, prompts, adapters * 2), wanted)
    assert engine._prefixes.reused == 3 * 200 + 3 * 204 + 3 * 205  # the second time all but the last token


def test_choices_of_a_prompt_share_it_whatever_a_step_may_read(fresh):
    engine = fresh(prefill_tokens=100, max_batch_size=3)
    config = RequestConfig(max_tokens=6, temperature=1, n=8, seed=1, logprobs=True, ignore_eos=True)
    ask(engine, SHORT[:1])
    with forwards(engine.model) as seen:
        found = ask(engine, talks(1), config=config)
    assert len({tuple(c.token_ids) for c in found}) == 8
    assert sum(seen) == 205 + 5 * 8 + 2  # two more batches read one token again
    again = fresh(prefix_cache_tokens=0)
    with forwards(again.model) as seen:
        ask(again, talks(1), config=config)
    assert max(seen) < 210


def test_windows_sinks_and_caps_see_known_keys(template):
    from transformers import Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM

    settings = dict(
        vocab_size=640, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, sliding_window=24, bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    for kind, config in ((MistralForCausalLM, MistralConfig), (Gemma2ForCausalLM, Gemma2Config)):
        torch.manual_seed(0)
        model = kind(config(**settings)).eval()
        with torch.no_grad():
            model.model.embed_tokens.weight.mul_(20)
        prompts = talks(3)
        engine = TransformersEngine(model, template=template)
        assert_same(ask(engine, prompts), ask(TransformersEngine(model, template=template, prefix_cache_tokens=0), prompts))
        assert (engine._way[0], engine._prefixes.reused) == ('slots', 400)


def test_rows_sent_back_to_wait_find_what_was_read(fresh):
    prompts = talks(6)
    config = RequestConfig(max_tokens=120, temperature=0, logprobs=True, ignore_eos=True)
    small = fresh(kv_cache_tokens=1200, prefix_cache_tokens=3000, max_batch_size=6)
    assert_same(ask(small, prompts, config=config), ask(fresh(prefix_cache_tokens=0), prompts, config=config))
    assert small._prefixes.tokens == 0  # the weights may change now


def test_the_budget_is_kept_and_the_oldest_goes(fresh):
    engine = fresh(prefix_cache_tokens=500, weights_stay=True)
    for prompt in talks(40):
        ask(engine, [prompt, *SHORT])
        assert engine._prefixes.tokens <= 500
    assert engine._prefixes.reused >= 39 * 200  # what is used stays
    with pytest.raises(SwiftError, match='prefix_cache_tokens=-1'):
        fresh(prefix_cache_tokens=-1)


class Sevens:
    """A cache whose keys are the tokens themselves."""

    def __init__(self, tokens):
        self.tokens = torch.tensor(tokens).view(1, -1, 1)

    def read(self, slot, start, end):
        return {0: (self.tokens[:, start:end].clone(), self.tokens[:, start:end].clone() * slot)}


def test_the_tree_finds_the_longest_beginning():
    rng = random.Random(1)
    store, kept = Prefixes(100_000, least=1), []
    for _ in range(400):
        tokens = [rng.randrange(3) for _ in range(rng.randrange(1, 12))]
        owner = rng.choice('xy')
        best = max((next((i for i, (a, b) in enumerate(zip(old, tokens, strict=False)) if a != b), min(len(old), len(tokens)))
                    for who, old in kept if who == owner), default=0)  # fmt: skip
        found, pieces = store.find(owner, tokens)
        assert found == best
        assert [place for place, _ in pieces] == [0, *torch.tensor([layers[0][0].shape[1] for _, layers in pieces]).cumsum(0).tolist()][: len(pieces)]
        joined = [t for _, layers in pieces for t in layers[0][0].flatten().tolist()]
        assert joined == tokens[:found]
        store.add(owner, tokens, Sevens(tokens), 7)
        kept.append((owner, tokens))
    assert store.tokens == len({(who, *old[:n]) for who, old in kept for n in range(1, len(old) + 1)})


def test_a_conversation_that_goes_on_is_not_read_again():
    from swift.arguments import parse_args
    from swift.infer_engine import InferRequest
    from swift.pipelines.infer import build_engine

    engine = build_engine(parse_args('infer', {'model': 'tiny', 'prefix_cache_tokens': 3000}, quiet=True))
    talk = [{'role': 'system', 'content': 'Answer in one short and friendly sentence.'}, {'role': 'user', 'content': 'What is 2 + 3?'}]
    config = RequestConfig(max_tokens=16, temperature=0)
    first = engine.infer([InferRequest(talk)], config)[0]
    assert engine._prefixes.budget == 3000
    talk += [{'role': 'assistant', 'content': first.choices[0].message.content}, {'role': 'user', 'content': 'And 4 + 4?'}]
    second = engine.infer([InferRequest(talk)], config)[0]
    assert engine._prefixes.reused >= first.usage.total_tokens - 1
    plain = build_engine(parse_args('infer', {'model': 'tiny', 'prefix_cache_tokens': 0}, quiet=True))
    assert plain.infer([InferRequest(talk)], config)[0].choices[0].message.content == second.choices[0].message.content
    assert plain._prefixes.reused == 0


def test_many_pieces_wake_the_loop_once():
    import asyncio
    import threading

    from swift.infer_engine.mailbox import Mailbox

    async def main():
        loop, queues = asyncio.get_running_loop(), [asyncio.Queue() for _ in range(3)]
        mailbox, calls = Mailbox(loop), []
        call = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: (calls.append(args), call(*args))

        def post():
            for index in range(300):
                mailbox.post(queues[index % 3], index)

        thread = threading.Thread(target=post)
        thread.start()
        thread.join()  # the loop does nothing meanwhile
        assert len(calls) == 1
        found = [[await queue.get() for _ in range(100)] for queue in queues]
        assert found == [list(range(start, 300, 3)) for start in range(3)]
        mailbox.post(queues[0], 'late')
        assert await queues[0].get() == 'late'
        return mailbox, queues[0]

    mailbox, queue = asyncio.run(main())
    mailbox.post(queue, 'nobody hears this')  # the loop is closed: no error
