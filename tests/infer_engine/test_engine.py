"""Batched answers are the answers one gets alone, and each request's settings are its own."""

import asyncio

import pytest
import torch

from swift.core.errors import SwiftError
from swift.infer_engine import AdapterRequest, InferRequest, RequestConfig, TransformersEngine

QUESTIONS = ['Hello', 'What is 12 + 30?', '你好,世界', 'def add(a, b):', 'The quick brown fox jumps over the lazy dog. ' * 6, 'x']


def ask(text):
    return InferRequest([{'role': 'user', 'content': text}])


REQUESTS = [ask(q) for q in QUESTIONS] + [ask(q + '?') for q in QUESTIONS]


def ids_of(responses):
    return [[choice.token_ids for choice in r.choices] for r in responses]


def config(**kwargs):
    return RequestConfig(**{'max_tokens': 12, 'temperature': 0, 'return_details': True, **kwargs})


def greedy(model, prompt, count, stop):
    """Token by token with the whole row forwarded each time: no cache, no batch."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            ids.append(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item())
        if ids[-1] == stop:
            break
    return ids[len(prompt) :]


def test_batched_greedy_is_the_models_own_greedy(engine, model, template):
    answers = engine.infer(REQUESTS, config())
    assert len({tuple(c.token_ids) for a in answers for c in a.choices}) > 6  # the answers do differ
    for request, answer in zip(REQUESTS, answers, strict=True):
        prompt = template.prompt(request.conversation()).input_ids
        assert answer.choices[0].token_ids == greedy(model, prompt, 12, template.tokenizer.eos_token_id)
        assert answer.usage.prompt_tokens == len(prompt) == len(answer.prompt_token_ids)
        assert answer.usage.completion_tokens == len(answer.choices[0].token_ids)


def test_continuous_batching_is_what_was_tested(engine):
    engine.infer(REQUESTS[:1], config())
    # 2 layers x (keys + values) x 2 heads x 16 numbers x 4 bytes
    assert engine._way == ('slots', 2 * 2 * 2 * 16 * 4)


def test_one_by_one_is_batched_whatever_the_settings(engine):
    configs = [
        config(max_tokens=1 + index, seed=index, temperature=index / 6, top_k=index * 3, top_p=1 - index / 20)
        for index in range(len(REQUESTS))
    ]
    together = ids_of(engine.infer(REQUESTS, configs))
    alone = [ids_of(engine.infer([r], c))[0] for r, c in zip(REQUESTS, configs, strict=True)]
    assert together == alone
    assert [len(t[0]) <= c.max_tokens for t, c in zip(together, configs, strict=True)] == [True] * len(configs)


def test_same_seed_same_answer_other_seed_other_answer(engine):
    one = config(temperature=1.5, seed=7)
    a, b = ids_of(engine.infer([REQUESTS[0]], one)), ids_of(engine.infer(REQUESTS, one))[:1]
    other = ids_of(engine.infer([REQUESTS[0]], config(temperature=1.5, seed=8)))
    assert a == b
    assert a != other
    free = [ids_of(engine.infer([REQUESTS[0]], config(temperature=1.5)))[0][0] for _ in range(3)]
    assert len(set(map(tuple, free))) == 3


def test_n_answers_differ_and_the_first_is_the_single_one(engine):
    three = engine.infer([REQUESTS[1]], config(temperature=1.2, seed=3, n=3))[0]
    assert [c.index for c in three.choices] == [0, 1, 2]
    assert len({tuple(c.token_ids) for c in three.choices}) == 3
    single = engine.infer([REQUESTS[1]], config(temperature=1.2, seed=3))[0]
    assert single.choices[0].token_ids == three.choices[0].token_ids
    assert three.usage.completion_tokens == sum(len(c.token_ids) for c in three.choices)


def test_logprobs_are_those_of_a_full_forward(engine, model):
    for settings in ({}, {'temperature': 1.3, 'top_p': 0.9, 'repetition_penalty': 1.4}):
        answers = engine.infer(REQUESTS, config(seed=1, logprobs=True, top_logprobs=3, **settings))
        for answer in answers:
            tokens = answer.choices[0].token_ids
            ids = torch.tensor([answer.prompt_token_ids + tokens])
            with torch.no_grad():
                logps = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].double(), -1)
            places = range(len(answer.prompt_token_ids) - 1, ids.shape[1] - 1)
            content = answer.choices[0].logprobs['content']
            assert [e['token_id'] for e in content] == tokens
            for place, entry in zip(places, content, strict=True):
                assert entry['logprob'] == pytest.approx(logps[place, entry['token_id']].item(), abs=1e-4)
                best = logps[place].topk(3)
                assert [t['token_id'] for t in entry['top_logprobs']] == best.indices.tolist()
                assert [t['logprob'] for t in entry['top_logprobs']] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert engine.infer(REQUESTS[:1], config())[0].choices[0].logprobs is None


def test_rows_sent_back_for_want_of_memory_answer_the_same(model, template, engine):
    small = TransformersEngine(model, template=template, max_batch_size=8, kv_cache_tokens=640)
    wanted = ids_of(engine.infer(REQUESTS, config(max_tokens=100, ignore_eos=True, seed=2, temperature=0.7)))
    found = ids_of(small.infer(REQUESTS, config(max_tokens=100, ignore_eos=True, seed=2, temperature=0.7)))
    assert found == wanted


def test_prefill_in_small_pieces_is_the_same(model, template, engine):
    small = TransformersEngine(model, template=template, max_batch_size=3, prefill_tokens=1)
    assert ids_of(small.infer(REQUESTS, config())) == ids_of(engine.infer(REQUESTS, config()))


def test_generation_config_gives_defaults_and_stays_as_it_is(engine, model, template):
    stored = type(model.generation_config)(eos_token_id=[2, 5], do_sample=True, temperature=0.4, top_k=9, max_new_tokens=6)
    other = TransformersEngine(model, template=template, generation_config=stored)
    prompt = template.prompt(REQUESTS[0].conversation())
    before = stored.to_dict(), model.generation_config.to_dict()
    settings = other.settings(prompt, RequestConfig(top_p=0.5, stop_token_ids=[11]))
    assert (settings.temperature, settings.top_k, settings.top_p, settings.max_tokens) == (0.4, 9, 0.5, 6)
    assert settings.stop_ids == {2, 5, 11}
    other.infer(REQUESTS[:2], RequestConfig(temperature=0.1, max_tokens=3))
    assert (stored.to_dict(), model.generation_config.to_dict()) == before


def test_answers_never_leave_the_context(model, template):
    engine = TransformersEngine(model, template=template, max_model_len=60)
    length = len(template.prompt(REQUESTS[0].conversation()).input_ids)
    answer = engine.infer([REQUESTS[0]], RequestConfig(temperature=0, ignore_eos=True))[0]
    assert answer.usage.total_tokens == 60
    assert answer.choices[0].finish_reason == 'length'
    assert answer.usage.prompt_tokens == length


def test_a_prompt_that_is_too_long_is_named(model, template):
    engine = TransformersEngine(model, template=template, max_model_len=60)
    with pytest.raises(SwiftError, match=r'request 1: the prompt has \d+ tokens and the model takes 60'):
        engine.infer([REQUESTS[0], REQUESTS[4]], config())
    found = engine.infer([REQUESTS[0], REQUESTS[4], REQUESTS[1]], config(), strict=False)
    assert isinstance(found[1], SwiftError)
    assert ids_of([found[0], found[2]]) == ids_of(engine.infer([REQUESTS[0], REQUESTS[1]], config()))


def test_every_wrong_setting_is_named_at_once(engine):
    with pytest.raises(SwiftError, match=r'top_p=2 .*temperature=-1|temperature=-1 .*top_p=2'):
        engine.infer(REQUESTS[:1], RequestConfig(top_p=2, temperature=-1))
    with pytest.raises(SwiftError, match='messages'):
        engine.infer([InferRequest([])])
    with pytest.raises(SwiftError, match='2 values for 1 requests'):
        engine.infer(REQUESTS[:1], [config(), config()])


def test_async_calls_share_batches_and_answer_alike(engine):
    async def all_at_once():
        return await asyncio.gather(*(engine.infer_async(r, config()) for r in REQUESTS))

    async def streamed():
        pieces = [p async for p in await engine.infer_async(REQUESTS[0], config(stream=True))]
        return ''.join(p.choices[0].delta.content or '' for p in pieces)

    wanted = engine.infer(REQUESTS, config())
    assert ids_of(asyncio.run(all_at_once())) == ids_of(wanted)
    assert asyncio.run(streamed()) == wanted[0].choices[0].message.content


def test_a_failing_model_fails_the_request_and_not_the_engine(model, template):
    engine = TransformersEngine(model, template=template)
    wanted = ids_of(engine.infer(REQUESTS[:2], config()))

    def broken(*_):
        raise RuntimeError('out of memory')

    handle = model.lm_head.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match='out of memory'):
        engine.infer(REQUESTS[:2], config())
    handle.remove()
    assert ids_of(engine.infer(REQUESTS[:2], config())) == wanted


def test_engines_of_one_model_take_turns(model, template):
    """What one of them puts on the model is never found by the other, whichever ends first."""
    wanted = ids_of(TransformersEngine(model, template=template).infer(REQUESTS, config()))
    engines = [TransformersEngine(model, template=template) for _ in range(3)]

    async def all_at_once():
        return await asyncio.gather(*(engine.infer_async(r, config()) for r in REQUESTS for engine in engines))

    for _ in range(5):
        found = ids_of(asyncio.run(all_at_once()))
        assert found == [ids for ids in wanted for _ in engines]
    for engine in engines:
        engine.infer(REQUESTS[:1], config())
    assert model.config._attn_implementation == 'sdpa'


def test_a_model_in_training_is_left_in_training(model, template):
    engine = TransformersEngine(model, template=template)
    model.train()
    try:
        engine.infer(REQUESTS[:2], config())
        assert model.training
        assert model.model.layers[0].training
        assert model.config._attn_implementation == 'sdpa'
    finally:
        model.eval()


def test_beams_are_transformers_own(engine, model, template):
    prompt = template.prompt(REQUESTS[1].conversation())
    wanted = model.generate(
        torch.tensor([prompt.input_ids]), num_beams=4, num_return_sequences=2, max_new_tokens=10, do_sample=False
    )[:, len(prompt.input_ids) :]
    found = engine.infer([REQUESTS[1]], config(num_beams=4, n=2, max_tokens=10))[0]
    for choice, row in zip(found.choices, wanted.tolist(), strict=True):
        end = row.index(2) + 1 if 2 in row else len(row)
        assert choice.token_ids == row[:end]


def test_a_recurrent_model_answers_as_alone(template):
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    settings = dict(vocab_size=640, hidden_size=32, num_hidden_layers=2, state_size=8, eos_token_id=2, pad_token_id=0)
    mamba = MambaForCausalLM(MambaConfig(**settings)).eval()
    with torch.no_grad():
        mamba.backbone.embeddings.weight.mul_(20)
    engine = TransformersEngine(mamba, template=template, max_model_len=512, max_batch_size=4)
    answers = engine.infer(REQUESTS, config(logprobs=True))
    assert engine._way[0] == 'static'
    for request, answer in zip(REQUESTS, answers, strict=True):
        prompt = template.prompt(request.conversation()).input_ids
        assert answer.choices[0].token_ids == greedy(mamba, prompt, 12, 2)
    sampled = config(temperature=1.0, seed=5)
    assert ids_of(engine.infer(REQUESTS, sampled))[0] == ids_of(engine.infer(REQUESTS[:1], sampled))[0]


def test_sliding_windows_are_kept(template):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    settings = dict(
        vocab_size=640, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=8, bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    mistral = MistralForCausalLM(MistralConfig(**settings)).eval()
    with torch.no_grad():
        mistral.model.embed_tokens.weight.mul_(30)
    engine = TransformersEngine(mistral, template=template, max_batch_size=4)
    answers = engine.infer(REQUESTS, config(max_tokens=20))
    assert engine._way[0] == 'slots'
    for request, answer in zip(REQUESTS, answers, strict=True):
        prompt = template.prompt(request.conversation()).input_ids
        assert answer.choices[0].token_ids == greedy(mistral, prompt, 20, 2)


@pytest.fixture(scope='module')
def adapters(tmp_path_factory):
    """Two random adapters of the model."""
    from peft import LoraConfig, get_peft_model

    from tests.helpers.tiny import build_model

    paths = []
    for seed in (1, 2):
        peft = get_peft_model(build_model(seed=3), LoraConfig(r=4, target_modules=['q_proj', 'v_proj', 'down_proj']))
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, weight in peft.named_parameters():
                if 'lora_' in name:
                    weight.normal_(0, 0.4)
        paths.append(str(tmp_path_factory.mktemp('adapter') / f'a{seed}'))
        peft.save_pretrained(paths[-1])
    return paths


def test_each_request_may_have_its_own_adapter(adapters, template):
    from copy import deepcopy

    from peft import PeftModel

    from tests.helpers.tiny import build_model

    base = build_model(seed=3).eval()
    wanted = []
    for path in (None, *adapters):
        plain = PeftModel.from_pretrained(deepcopy(base), path).eval() if path else base
        wanted.append([greedy(plain, template.prompt(r.conversation()).input_ids, 12, 2) for r in REQUESTS[:4]])
    assert len({str(w) for w in wanted}) == 3
    engine = TransformersEngine(deepcopy(base), template=template)
    requests = [None, AdapterRequest('one', adapters[0]), AdapterRequest('two', adapters[1])]
    mixed = engine.infer(
        [r for r in REQUESTS[:4] for _ in requests], config(), adapter_request=[a for _ in REQUESTS[:4] for a in requests]
    )
    found = ids_of(mixed)
    for index in range(3):
        assert [row[0] for row in found[index::3]] == wanted[index]
    assert mixed[1].model == 'one'
    with pytest.raises(SwiftError, match="adapter 'one' is"):
        engine.infer(REQUESTS[:1], config(), adapter_request=AdapterRequest('one', adapters[1]))
    with pytest.raises(SwiftError, match='adapter_config.json'):
        engine.infer(REQUESTS[:1], config(), adapter_request=AdapterRequest('three', '/nowhere'))
    default = TransformersEngine(deepcopy(base), adapters[0], template=template)
    assert [row[0] for row in ids_of(default.infer(REQUESTS[:4], config()))] == wanted[1]
