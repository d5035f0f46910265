"""Models with a classification head or without any: which class, which weights may be new, what their configuration says."""

import json
import logging
import os
import shutil

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, BertConfig, RobertaConfig

from swift.arguments.model import ModelArgs
from swift.core.errors import ModelError
from swift.core.heads import BARE, LANGUAGE, SEQUENCE, TOKEN, head_kind, head_names, unused_names
from swift.model import load_model, model_info
from swift.model.empty import empty_model
from tests.helpers.architectures import model_types
from tests.helpers.heads import ENCODERS, Trip
from tests.helpers.tiny import build_model, build_tokenizer, save_encoder
from tests.model.test_architectures import NOT_POSSIBLE


def args(model, task='seq_cls', **more):
    return ModelArgs(model=str(model), task_type=task, **more)


@pytest.fixture(scope='module')
def encoder_dir(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp('encoder') / 'model')


@pytest.fixture
def classifier_dir(tiny_dir, tmp_path):
    """A trained classifier of three named classes."""
    loaded = load_model(args(tiny_dir, class_names=['x', 'y', 'z'], problem_type='multi_label_classification'))
    loaded.model.score.weight.data.fill_(0.5)
    loaded.model.save_pretrained(tmp_path / 'classifier')
    loaded.processor.save_pretrained(tmp_path / 'classifier')
    return tmp_path / 'classifier'


@pytest.fixture
def lines(caplog):
    logger = logging.getLogger('swift')
    logger.propagate, kept = True, logger.propagate
    caplog.set_level(logging.INFO)
    yield lambda: [record.getMessage() for record in caplog.records if record.name.startswith('swift')]
    logger.propagate = kept


@pytest.mark.parametrize(('task', 'more', 'cls', 'kind', 'heads'), [
    ('seq_cls', dict(num_labels=3), 'Qwen3ForSequenceClassification', SEQUENCE, ['score']),
    ('reranker', dict(num_labels=1), 'Qwen3ForSequenceClassification', SEQUENCE, ['score']),
    ('token_cls', dict(num_labels=5), 'Qwen3ForTokenClassification', TOKEN, ['score']),
    ('embedding', {}, 'Qwen3Model', BARE, []),
    ('causal_lm', {}, 'Qwen3ForCausalLM', LANGUAGE, []),
    ('generative_reranker', {}, 'Qwen3ForCausalLM', LANGUAGE, []),
    ('multi_task', {}, 'Qwen3ForCausalLM', LANGUAGE, []),
])  # fmt: skip
def test_the_task_decides_the_class(tiny_dir, lines, task, more, cls, kind, heads):
    model = load_model(args(tiny_dir, task, **more)).model
    assert type(model).__name__ == cls and head_kind(model) == kind and head_names(model) == heads
    count = more.get('num_labels')
    assert [line for line in lines() if 'head' in line] == ([f'new head: score [{count}, 64]'] if count else [])
    assert not any('left out' in line for line in lines()), 'the language-model head is left out in silence'
    empty = empty_model(args(tiny_dir, task, **more), model_info(args(tiny_dir, task, **more)))
    assert type(empty) is type(model) and {n: p.shape for n, p in empty.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


def test_a_new_head_depends_on_the_seed_and_on_nothing_else(tiny_dir):
    heads = []
    for seed, used in ((1, 0), (1, 7), (2, 0)):
        torch.manual_seed(seed)
        torch.rand(used)
        before = torch.get_rng_state()
        heads.append(load_model(args(tiny_dir, num_labels=3)).model.score.weight)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_the_configuration_says_what_the_classes_are(classifier_dir):
    config = json.load(open(classifier_dir / 'config.json'))
    assert config['id2label'] == {'0': 'x', '1': 'y', '2': 'z'} and config['label2id'] == {'x': 0, 'y': 1, 'z': 2}
    assert config['problem_type'] == 'multi_label_classification' and config['pad_token_id'] == 0
    assert config['architectures'] == ['Qwen3ForSequenceClassification']


def test_the_padding_token_is_the_tokenizers(tmp_path):
    build_model(pad_token_id=None).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    model = load_model(args(tmp_path, num_labels=2)).model
    assert model.config.pad_token_id == 0
    ids = torch.tensor([[5, 6, 7, 0, 0], [5, 6, 7, 8, 9]])
    with torch.no_grad():
        both = model.eval()(input_ids=ids, attention_mask=(ids != 0).long()).logits
        torch.testing.assert_close(both[0], model(input_ids=ids[:1, :3]).logits[0])


def test_a_classifier_loads_its_head(classifier_dir, lines):
    model = load_model(args(classifier_dir)).model
    assert (model.score.weight == 0.5).all() and model.config.num_labels == 3 and model.config.id2label[2] == 'z'
    assert not any('head' in line for line in lines())
    plain = AutoModelForSequenceClassification.from_pretrained(classifier_dir)
    assert torch.equal(plain.score.weight, model.score.weight)
    bare = load_model(args(classifier_dir, 'embedding')).model
    assert head_kind(bare) == BARE and not any('left out' in line for line in lines())


def test_a_head_for_other_classes_is_refused(classifier_dir):
    with pytest.raises(ModelError, match=r'has a head for 3 classes \(score.weight\), not 2; give --num_labels 3'):
        load_model(args(classifier_dir, num_labels=2))


def test_the_number_of_classes_must_be_known(tiny_dir):
    with pytest.raises(ModelError, match='no classification head yet; say how many classes it gets: --num_labels'):
        load_model(args(tiny_dir))
    with pytest.raises(ModelError, match='2 names for --num_labels 3'):
        load_model(args(tiny_dir, num_labels=3, class_names=['a', 'b']))


def test_other_missing_weights_stay_an_error(tiny_dir, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_dir, tmp_path / 'broken')
    path = os.path.join(tmp_path / 'broken', 'model.safetensors')
    weights = load_file(path)
    weights.pop('model.layers.1.mlp.up_proj.weight')
    save_file(weights, path, metadata={'format': 'pt'})
    with pytest.raises(ModelError, match=r'1 weights are missing \(first: model.layers.1.mlp.up_proj.weight'):
        load_model(args(tmp_path / 'broken', num_labels=2))


def test_encoders(encoder_dir, lines):
    model = load_model(args(encoder_dir, num_labels=2)).model
    assert type(model).__name__ == 'BertForSequenceClassification' and head_names(model) == ['bert.pooler', 'classifier']
    assert 'new head: classifier [2, 64]' in lines()
    assert head_names(load_model(args(encoder_dir, 'token_cls', num_labels=2)).model) == ['classifier']
    bare = load_model(args(encoder_dir, 'embedding')).model
    assert unused_names(bare) == ['pooler'] and not any('left out' in line for line in lines())


def test_a_masked_language_model_gets_a_pooler_too(tmp_path, lines):
    sizes = dict(vocab_size=640, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    AutoModelForMaskedLM.from_config(BertConfig(**sizes)).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    load_model(args(tmp_path, num_labels=2))
    assert lines() == ['new head: bert.pooler.dense [32, 32], classifier [2, 32]']
    load_model(args(tmp_path, 'embedding'))
    assert len(lines()) == 1, 'the pooler of an embedding model is never read'


def test_positions_that_no_token_can_have_are_not_counted(tmp_path):
    sizes = dict(vocab_size=640, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    AutoModelForMaskedLM.from_config(RobertaConfig(**sizes, max_position_embeddings=66, pad_token_id=1)).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    assert model_info(args(tmp_path)).max_model_len == 64
    model = load_model(args(tmp_path, num_labels=2)).model
    assert model.config.pad_token_id == 1 and model(input_ids=torch.full((1, 64), 5)).logits.shape == (1, 2)


QUICK = [('qwen3', 'seq_cls'), ('gpt2', 'token_cls'), ('mamba', 'seq_cls'), ('llama4_text', 'token_cls'), ('gemma3', 'seq_cls'),
         ('bert', 'seq_cls'), ('roberta', 'token_cls'), ('xlm-roberta', 'embedding'), ('modernbert', 'seq_cls'), ('distilbert', 'seq_cls')]  # fmt: skip
"""Own and built classifiers, state spaces, a multimodal one; poolers, positions behind the padding token, heads of several layers."""


def check(model_type, task, folder):
    found = Trip(model_type, str(folder), task, encoder=model_type in ENCODERS).run()
    assert not [name for name in found['silent'] if 'modules_to_save' in name], 'the head learns'
    assert bool(found['heads']) == (task != 'embedding')
    return found


@pytest.mark.parametrize(('model_type', 'task'), QUICK)
def test_a_handful_through_lora_and_back(model_type, task, tmp_path):
    found = check(model_type, task, tmp_path)
    assert not found['silent']


NO_CLASSIFIER = {
    **dict.fromkeys('bart bigbird_pegasus blenderbot blenderbot-small marian mbart mvp pegasus plbart prophetnet whisper'.split(),
                    'the decoder alone; a classifier of it has an encoder too'),
    **dict.fromkeys(('emu3', 'mllama', 'trocr'), 'what is written has no base model in transformers'),
    'blt': 'its configuration does not say how wide its hidden states are',
    ('deepseek_v4', 'embedding'): 'transformers renames its last norm for its language model only',
    ('reformer', 'token_cls'): 'its hidden states are twice as wide as its configuration says',
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('task', ['seq_cls', 'token_cls', 'embedding'])
@pytest.mark.parametrize('model_type', list(dict.fromkeys([*model_types(), *ENCODERS])))
def test_every_other(model_type, task, tmp_path):
    reason = NOT_POSSIBLE.get(model_type) or NO_CLASSIFIER.get((model_type, task)) or NO_CLASSIFIER.get(model_type)
    if reason:
        pytest.skip(reason)
    check(model_type, task, tmp_path)
