"""What lies beside the weights of an embedding model, and that its training sees one model throughout a step."""

import json
import os

import pytest
import torch

from swift.model.info import describe
from swift.model.sentence_transformers import default_pooling, stored_pooling
from swift.pipelines.train import sft_main
from tests.helpers.methods import group_rows
from tests.helpers.tiny import save_encoder


@pytest.fixture
def flags(tiny_dir, tmp_path, monkeypatch):
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path / 'cache'))
    path = tmp_path / 'rows.jsonl'
    path.write_text('\n'.join(json.dumps(row) for row in group_rows(12)))
    return dict(
        model=tiny_dir, task_type='embedding', dataset=str(path), output_dir=str(tmp_path / 'out'), max_steps=2, max_length=64,
        per_device_train_batch_size=4, learning_rate=1e-3, report_to='none',
    )  # fmt: skip


@torch.no_grad()
def vector(folder: str, text: str) -> torch.Tensor:
    """As the files of a folder say, with plain transformers: their tokenizer, their pooling, length 1."""
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors='pt')['input_ids']
    states = AutoModel.from_pretrained(folder).eval()(input_ids=ids).last_hidden_state[0]
    kinds = [module['type'].rpartition('.')[2] for module in json.load(open(os.path.join(folder, 'modules.json')))]
    assert kinds == ['Transformer', 'Pooling', 'Normalize']
    modes = json.load(open(os.path.join(folder, '1_Pooling', 'config.json')))
    assert modes['word_embedding_dimension'] == states.shape[1]
    pooled = states[-1] if modes['pooling_mode_lasttoken'] else states.mean(0)
    return torch.nn.functional.normalize(pooled, dim=0)


@pytest.mark.parametrize('pooling', [None, 'mean'])
def test_the_files_give_the_vectors_that_were_trained(flags, tokenizer, pooling):
    from transformers import AutoModel

    folder = sft_main({**flags, 'tuner_type': 'full', **({'pooling': pooling} if pooling else {})})['last_model_checkpoint']
    text = 'the quick brown fox'
    ids = [*tokenizer(text)['input_ids'], *([] if pooling else [tokenizer.eos_token_id])]
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(input_ids=torch.tensor([ids])).last_hidden_state[0]
    trained = torch.nn.functional.normalize(states.mean(0) if pooling else states[-1], dim=0)
    torch.testing.assert_close(vector(folder, text), trained)
    assert json.load(open(os.path.join(folder, 'sentence_bert_config.json')))['max_seq_length'] == 64
    assert default_pooling(describe(folder)) == (pooling or 'last')


def test_a_merged_adapter_keeps_them_and_the_next_training_reads_them(flags):
    from swift.pipelines.export import merge_lora_main

    adapter = sft_main({**flags, 'tuner_type': 'lora', 'pooling': 'cls'})['last_model_checkpoint']
    merge_lora_main({'adapters': [adapter]})
    assert stored_pooling(adapter) == stored_pooling(adapter + '-merged') == 'cls'
    again = sft_main({**flags, 'model': adapter + '-merged', 'tuner_type': 'full'})
    assert json.load(open(os.path.join(again['run_dir'], 'args.json')))['pooling'] == 'cls'


def test_with_a_chat_template_there_are_none(flags):
    folder = sft_main({**flags, 'tuner_type': 'full', 'use_chat_template': True})['last_model_checkpoint']
    assert not os.path.exists(os.path.join(folder, 'modules.json'))


def test_pooling_of_models_that_say_nothing_or_something_else(tiny_dir, tmp_path):
    assert default_pooling(describe(tiny_dir)) == 'last'
    encoder = save_encoder(tmp_path / 'bert')
    assert default_pooling(describe(encoder)) == 'mean'
    (tmp_path / 'bert' / 'pool').mkdir()
    modules = [{'type': 'x.Transformer', 'path': ''}, {'type': 'x.Pooling', 'path': 'pool'}]
    (tmp_path / 'bert' / 'modules.json').write_text(json.dumps(modules))
    for config, expected in (({'pooling_mode': 'lasttoken'}, 'last'), ({'pooling_mode_cls_token': True}, 'cls')):
        (tmp_path / 'bert' / 'pool' / 'config.json').write_text(json.dumps(config))
        assert default_pooling(describe(encoder)) == expected
    (tmp_path / 'bert' / 'pool' / 'config.json').write_text(json.dumps({'pooling_mode_max_tokens': True}))
    with pytest.raises(Exception, match='pools by pooling_mode_max_tokens; give --pooling'):
        default_pooling(describe(encoder))


def test_what_looks_at_a_step_sees_the_model_in_training_mode(flags, monkeypatch):
    """Also before the first step, and after an evaluation: dropout is the same in both forwards."""
    from swift.objectives.embedding import Embedding

    seen, prepare = [], Embedding.prepare

    def look(self, batches, actors, gather):
        seen.append((len(batches), actors.policy.module.training))
        prepare(self, batches, actors, gather)

    monkeypatch.setattr(Embedding, 'prepare', look)
    sft_main({**flags, 'gradient_accumulation_steps': 2, 'per_device_train_batch_size': 2, 'val_dataset': flags['dataset'] + '#2', 'eval_steps': 1})
    assert [training for count, training in seen if count == 2] == [True, True]
    assert {training for count, training in seen if count == 1} == {False}


def test_a_tokenizer_that_begins_texts_ends_them_too(tmp_path):
    """Two templates in a row would put their tokens around each other's."""
    from swift.model.sentence_transformers import end_with
    from tests.helpers.vlm_tokens import build_tokenizer

    tokenizer = build_tokenizer({'bos_token': '<s>', 'eos_token': '</s>', 'pad_token': '<pad>'}, [], bos=True)
    bare = tokenizer('hello', add_special_tokens=False)['input_ids']
    assert tokenizer('hello')['input_ids'] == [tokenizer.bos_token_id, *bare]
    end_with(tokenizer, '</s>')
    tokenizer.save_pretrained(tmp_path)
    for found in (tokenizer, type(tokenizer).from_pretrained(tmp_path)):
        assert found('hello')['input_ids'] == [tokenizer.bos_token_id, *bare, tokenizer.eos_token_id]
        assert found('hello', add_special_tokens=False)['input_ids'] == bare
