"""The reference inside the trained model: what it computes, and that it leaves no trace."""

from types import SimpleNamespace

import pytest
import torch

from swift.arguments.tuner import TunerArgs
from swift.core.errors import ModelError
from swift.tuners import prepare_tuner, save_tuner
from swift.tuners.effective import check_separable, effective_weights
from swift.tuners.switch import (
    adapters_off,
    add_frozen,
    as_started,
    can_share,
    other_adapter,
    present,
    remove,
    split_start,
)
from tests.helpers.tiny import build_model

IDS = torch.randint(3, 500, (2, 20), generator=torch.Generator().manual_seed(1))
KINDS = {
    'lora': {},
    'head': {'modules_to_save': ['lm_head']},
    'embedding': {'modules_to_save': ['embed_tokens']},
    'biases': {'lora_bias': 'all'},
    'dora': {'use_dora': True},
    'tokens': {},
    'pissa': {'init_weights': 'pissa'},
    'olora': {'init_weights': 'olora'},
}


def base(**config):
    return build_model(attention_bias=True, attention_dropout=0.3, **config).eval()


def tuned(kind='lora', model=None, **settings):
    info = SimpleNamespace(new_token_ids=(598, 599) if kind == 'tokens' else (), is_multimodal=False, quant_method=None)
    return prepare_tuner(model or base(), TunerArgs(**{'lora_dropout': 0.3, **KINDS[kind], **settings}), info=info).train()


@torch.no_grad()
def learn(model, seed=0):
    """Move everything that learns."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def state(model):
    """All that must be as before: which parameters, where their numbers are, what learns, modes, what PEFT's layers read."""
    parameters = [(name, id(p), p.data_ptr(), p.requires_grad, p._version) for name, p in model.named_parameters()]
    modules = [(name, m.training, getattr(m, '_disable_adapters', None), getattr(m, 'active_adapters', None)) for name, m in model.named_modules()]
    return parameters, modules


@torch.no_grad()
def said(model):
    return model.eval()(IDS).logits


@pytest.mark.parametrize('kind', KINDS)
def test_the_model_before_training_bit_for_bit_and_no_trace(kind):
    """Dropout modules, dropout inside attention, trained heads, rows and biases are off; PiSSA's and OLoRA's base is put together."""
    wanted, model = said(base()), tuned(kind)
    start = split_start(model)
    assert (start is not None) == (kind in ('pissa', 'olora'))
    view = as_started(model, start) if start else adapters_off(model)
    learn(model)
    model.get_base_model().model.layers[0].eval()  # a module that was not in training mode stays so
    before = state(model)
    with view():
        got = model(IDS).logits
        learning = [p.requires_grad for p in model.parameters()]
    assert not got.requires_grad and torch.is_grad_enabled()
    assert learning == [row[3] for row in before[0]]
    assert state(model) == before
    gap = (got - wanted).abs().max()
    assert gap < 1e-5 if start else gap == 0
    assert (said(model) - wanted).abs().max() > 0.1


@pytest.mark.parametrize('kind', ['biases', 'pissa'])
def test_the_model_before_training_under_autocast_after_the_policy_has_run(kind):
    """Autocast remembers parameters in half precision for as long as it is open: the policy's must not answer for the reference."""
    model = tuned(kind)
    start = split_start(model)
    view = as_started(model, start) if start else adapters_off(model)
    with torch.autocast('cpu', dtype=torch.bfloat16), view():
        wanted = model(IDS).logits
    learn(model)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        first = said(model)
        with view():
            got = model(IDS).logits
        again = model.eval()(IDS).logits
    assert torch.equal(got, wanted) and torch.equal(again, first)
    assert again.requires_grad and (first - wanted).abs().max() > 0.1


@pytest.mark.parametrize('kind', ['embedding', 'biases', 'pissa'])
def test_an_exception_leaves_no_trace(kind):
    model = tuned(kind)
    start = split_start(model)
    view = as_started(model, start) if start else adapters_off(model)
    learn(model)
    before = state(model)
    with pytest.raises(RuntimeError, match='in between'), view():
        raise RuntimeError('in between')
    assert state(model) == before


@pytest.mark.parametrize('kind', ['lora', 'embedding', 'biases', 'pissa'])
def test_a_forward_in_between_changes_no_gradient(kind):
    """Policy forward, reference forward, backward: as without the reference, with gradient checkpointing too."""
    gradients = {}
    for asked, checkpointing in ((False, False), (True, False), (True, True)):
        model = tuned(kind, lora_dropout=0.0)
        start = split_start(model)
        view = as_started(model, start) if start else adapters_off(model)
        learn(model)
        for module in model.modules():
            if hasattr(module, 'attention_dropout'):
                module.attention_dropout = 0.0
        if checkpointing:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({'use_reentrant': False})
        logits = model(IDS).logits
        if asked:
            with view():
                model(IDS)
        logits.float().logsumexp(-1).mean().backward()
        gradients[asked, checkpointing] = [p.grad for p in model.parameters() if p.requires_grad]
        assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    plain = gradients.pop((False, False))
    for other in gradients.values():
        assert len(plain) == len(other) and all(torch.allclose(a, b, atol=1e-7) for a, b in zip(plain, other, strict=True) if a is not None)


def test_a_start_that_is_not_nothing_is_kept():
    """What LoftQ needs: the adapter as it was drawn."""
    model = tuned('lora', init_weights='false')
    wanted = said(model)
    view = as_started(model.train(), present(model))
    learn(model)
    with view():
        assert torch.equal(model(IDS).logits, wanted)


@pytest.mark.parametrize('kind', ['lora', 'embedding', 'dora'])
def test_a_second_adapter_is_only_heard_when_asked(tmp_path, kind):
    """The policy's outputs, what learns, and every byte of its checkpoint are the same with and without it."""
    other = tuned('lora', target_modules=['q_proj', 'down_proj'])
    learn(other, seed=5)
    wanted = said(other)
    save_tuner(other, tmp_path / 'other')
    model = tuned(kind, target_modules=['q_proj', 'v_proj'])
    learn(model)
    policy, names = said(model), [name for name, p in model.named_parameters() if p.requires_grad]
    save_tuner(model, tmp_path / 'before')
    assert can_share(model, str(tmp_path / 'other'))
    add_frozen(model.train(), str(tmp_path / 'other'), 'reference')
    assert [name for name, p in model.named_parameters() if p.requires_grad] == names
    before = state(model)
    with other_adapter(model, 'reference')():
        assert torch.equal(model(IDS).logits, wanted)
    assert state(model) == before
    assert torch.equal(said(model), policy)
    model.train()(IDS).logits.float().logsumexp(-1).mean().backward()
    assert all(p.grad is None for name, p in model.named_parameters() if '.reference' in name)
    save_tuner(model, tmp_path / 'after')
    for file in ('adapter_model.safetensors', 'adapter_config.json'):
        assert (tmp_path / 'before' / file).read_bytes() == (tmp_path / 'after' / file).read_bytes()
    remove(model, 'reference')
    assert list(model.peft_config) == ['default'] and torch.equal(said(model), policy)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == names


def test_adapters_that_replace_modules_are_not_shared(tmp_path):
    for kind in ('embedding', 'tokens'):
        save_tuner(tuned(kind), tmp_path / kind)
        assert not can_share(tuned(), str(tmp_path / kind))
    save_tuner(tuned(), tmp_path / 'plain')
    assert not can_share(tuned('tokens'), str(tmp_path / 'plain'))


# ---- the weights that a model with an adapter computes with


@pytest.mark.parametrize('tied', [True, False], ids=['tied', 'untied'])
@pytest.mark.parametrize('kind', KINDS)
def test_effective_weights_compute_the_same_and_the_model_keeps_its_bits(kind, tied):
    model = tuned(kind, base(tie_word_embeddings=tied))
    learn(model)
    check_separable(model)
    before = {name: (p.data_ptr(), p.detach().clone()) for name, p in model.named_parameters()}
    bare = base(tie_word_embeddings=tied)
    places = dict(bare.named_parameters())
    given = []
    for name, value in effective_weights(model):
        if name in places:
            given.append(name)
            places[name].data.copy_(value)
        else:
            assert tied and name == 'lm_head.weight'
    assert sorted(given) == sorted(places)
    after = {name: (p.data_ptr(), p) for name, p in model.named_parameters()}
    assert before.keys() == after.keys()
    assert all(before[name][0] == after[name][0] and torch.equal(before[name][1], after[name][1]) for name in before)
    policy = said(model)
    assert (said(bare) - policy).abs().max() < 1e-5 < (policy - said(base(tie_word_embeddings=tied))).abs().max()


def test_half_precision_is_merged_in_float32():
    """bfloat16 weights come out as W + s·B·A rounded by nobody."""
    model = tuned('lora', base().to(torch.bfloat16))
    learn(model)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    wanted = layer.get_base_layer().weight.float() + layer.scaling['default'] * (layer.lora_B['default'].weight @ layer.lora_A['default'].weight)
    got = dict((name, value.clone()) for name, value in effective_weights(model))['model.layers.0.self_attn.q_proj.weight']
    assert got.dtype == torch.float32 and (got - wanted).abs().max() < 1e-6


def test_a_plain_model_gives_its_own_weights():
    model = base()
    assert all(value.data_ptr() == dict(model.named_parameters())[name].data_ptr() for name, value in effective_weights(model))


def test_an_adapter_on_one_of_two_tied_modules_is_refused():
    model = tuned('lora', target_modules=['q_proj', 'embed_tokens'])
    with pytest.raises(ModelError, match='model.embed_tokens, which shares its weight .* leave it out of --target_modules, or drop --sync_ref_model'):
        check_separable(model)
    check_separable(tuned('lora', base(tie_word_embeddings=False), target_modules=['q_proj', 'embed_tokens']))
