"""Inference with models that answer with numbers: its numbers are those that training's own evaluation saw."""

import io
import json
import math
import os

import numpy as np
import pytest

from swift import infer_main, rlhf_main, sft_main
from swift.core.errors import SwiftError
from tests.helpers.methods import CASES
from tests.pipelines.conftest import write_rows

COUNT = 10


@pytest.fixture(scope='module')
def trained(tiny_dir, tmp_path_factory):
    """`make(name, **flags)` → (result, rows file) of a short training with an evaluation at its end; each is made once."""
    made = {}

    def make(name, **flags):
        key = (name, *sorted(flags.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp('scoring')
            case = CASES[name]
            rows = flags.pop('rows', None) or case.rows(COUNT)
            path = write_rows(folder / 'rows.jsonl', rows)
            settings = dict(
                model=tiny_dir, dataset=path, val_dataset=path, output_dir=str(folder / 'out'), max_steps=3, learning_rate=3e-3,
                per_device_train_batch_size=4, per_device_eval_batch_size=3, report_to='none', lora_dropout=0.0, eval_strategy='steps',
                eval_steps=3, save_steps=3, add_version=False, max_length=256,
            )  # fmt: skip
            run = rlhf_main if case.command == 'rlhf' else sft_main
            made[key] = (run({**settings, **case.settings, **flags}), path)
        return made[key]

    return make


def evaluation(result):
    return next(record for record in reversed(result['log_history']) if 'eval_loss' in record)


def answers(result, path, tmp_path, **flags):
    out = str(tmp_path / 'answers.jsonl')
    rows = infer_main(dict(adapters=result['last_model_checkpoint'], val_dataset=path, result_path=out, **flags))
    assert [json.loads(line) for line in open(out, encoding='utf-8')] == json.loads(json.dumps(rows))
    return rows


def log_sigmoid(value):
    return -math.log1p(math.exp(-value))


def test_a_classifier_gives_the_probabilities_that_were_trained(trained, tmp_path, capsys):
    result, path = trained('seq_cls')
    rows = answers(result, path, tmp_path, metric='acc')
    loss = -np.mean([math.log(row['probabilities'][row['labels']]) for row in rows])
    seen = evaluation(result)
    assert loss == pytest.approx(seen['eval_loss'], rel=1e-4)
    assert all(max(row['probabilities'], key=row['probabilities'].get) == row['response'] for row in rows)
    printed = dict(word.split('=') for word in capsys.readouterr().out.split() if '=' in word)
    assert float(printed['accuracy']) == pytest.approx(seen['eval_accuracy'], abs=1e-4)
    assert float(printed['f1_macro']) == pytest.approx(seen['eval_f1_macro'], abs=1e-4)
    assert set(rows[0]['probabilities']) == {'low', 'middle', 'high'}


def test_rows_need_no_label_and_come_back_whole(trained, tmp_path):
    result, path = trained('seq_cls')
    with_labels = answers(result, path, tmp_path)
    bare = [{'messages': row['messages'], 'id': number} for number, row in enumerate(with_labels)]
    bare.insert(3, {'messages': [{'role': 'user', 'content': 'fox ' * 900}], 'id': 'long'})
    (tmp_path / 'bare').mkdir()
    rows = answers(result, write_rows(tmp_path / 'bare.jsonl', bare), tmp_path / 'bare', max_length=512, max_batch_size=2)
    assert rows[3]['response'] is None and 'max_length 512' in rows[3]['error'] and rows[3]['id'] == 'long'
    del rows[3]
    for row, other in zip(rows, with_labels, strict=True):
        assert row['labels'] is None and row['messages'] == other['messages']
        assert row['probabilities'] == pytest.approx(other['probabilities'], abs=1e-5)


def test_several_classes_at_once_and_values(trained, tmp_path):
    texts = [row['messages'] for row in CASES['seq_cls'].rows(COUNT)]
    several = [{'messages': text, 'label': [['a'], ['b'], ['a', 'c'], []][number % 4]} for number, text in enumerate(texts)]
    result, path = trained('seq_cls', rows=tuple_of(several), problem_type='multi_label_classification')
    rows = answers(result, path, tmp_path)
    each = [log_share(row['probabilities'][name], name in row['labels']) for row in rows for name in 'abc']
    assert -np.mean(each) == pytest.approx(evaluation(result)['eval_loss'], rel=1e-4)
    assert all(row['response'] == [name for name in 'abc' if row['probabilities'][name] > 0.5] for row in rows)

    (tmp_path / 'values').mkdir()
    values = [{'messages': text, 'label': number / 3} for number, text in enumerate(texts)]
    result, path = trained('seq_cls', rows=tuple_of(values), problem_type='regression')
    rows = answers(result, path, tmp_path / 'values')
    assert np.mean([(row['response'] - row['labels']) ** 2 for row in rows]) == pytest.approx(evaluation(result)['eval_loss'], rel=1e-4)


class tuple_of(list):
    """Rows that can be part of a key."""

    def __hash__(self):
        return hash(json.dumps(self))


def log_share(share, is_so):
    return math.log(share if is_so else 1 - share)


def test_words_get_their_classes(trained, tmp_path, capsys):
    result, path = trained('token_cls')
    rows = answers(result, path, tmp_path, metric='acc')
    hits = [mine == theirs for row in rows for mine, theirs in zip(row['response'], row['labels'], strict=True)]
    assert np.mean(hits) == pytest.approx(evaluation(result)['eval_accuracy'], abs=1e-6)
    assert f'accuracy={np.mean(hits):.4f}' in capsys.readouterr().out
    assert [word['word'] for word in rows[0]['words']] == rows[0]['tokens']
    assert all(1 / 3 <= word['probability'] <= 1 for row in rows for word in row['words'])


def test_a_reward_model_judges_chosen_and_rejected(trained, tmp_path, capsys):
    result, path = trained('rm', rows=tuple_of([{k: v for k, v in row.items() if k != 'margin'} for row in CASES['rm'].rows(COUNT)]))
    rows = answers(result, path, tmp_path, metric='acc')
    seen = evaluation(result)
    assert -np.mean([log_sigmoid(row['margin']) for row in rows]) == pytest.approx(seen['eval_loss'], rel=1e-4)
    assert np.mean([row['response'] for row in rows]) == pytest.approx(seen['eval_rewards/chosen'], rel=1e-3, abs=1e-5)
    assert f'rewards/accuracies={seen["eval_rewards/accuracies"]:.4f}' in capsys.readouterr().out
    (tmp_path / 'alone').mkdir()
    alone = answers(result, write_rows(tmp_path / 'one.jsonl', [{'messages': rows[0]['messages']}]), tmp_path / 'alone')
    assert alone[0]['response'] == pytest.approx(rows[0]['response'], abs=1e-5) and 'margin' not in alone[0]


def test_embeddings_have_the_similarities_that_were_trained(trained, tmp_path, capsys):
    scored = [{'sentence1': row['query'], 'sentence2': row['positive'], 'score': (number % 5) / 4}
              for number, row in enumerate(CASES['embedding'].rows(COUNT))]  # fmt: skip
    result, path = trained('embedding', rows=tuple_of(scored), loss_type='cosine_similarity')
    rows = answers(result, path, tmp_path, metric='acc')
    loss = np.mean([(row['similarities'][0] - row['labels']) ** 2 for row in rows])
    seen = evaluation(result)
    assert loss == pytest.approx(seen['eval_loss'], rel=1e-3)
    assert f'spearman={seen["eval_spearman"]:.4f}' in capsys.readouterr().out
    assert all(np.linalg.norm(row['response']) == pytest.approx(1, abs=1e-6) for row in rows)
    (tmp_path / 'alone').mkdir()
    single = [{'query': row['messages'][0]['content']} for row in rows]
    alone = answers(result, write_rows(tmp_path / 'alone.jsonl', single), tmp_path / 'alone', max_batch_size=1)
    assert all('similarities' not in row for row in alone)
    assert np.abs(np.array([row['response'] for row in rows]) - [row['response'] for row in alone]).max() < 1e-5


@pytest.mark.parametrize('name', ['reranker', 'generative_reranker'])
def test_rerankers_give_the_probabilities_that_were_trained(name, trained, tmp_path, capsys):
    result, path = trained(name)
    rows = answers(result, path, tmp_path, metric='acc')
    each = [log_share(score, place < len(row['positive_messages'])) for row in rows for place, score in enumerate(row['response'])]
    seen = evaluation(result)
    assert -np.mean(each) == pytest.approx(seen['eval_loss'], rel=1e-4)
    assert f'mrr={seen["eval_mrr"]:.4f}' in capsys.readouterr().out
    for row in rows:
        ordered = [row['response'][number] for number in row['ranking']]
        assert ordered == sorted(ordered, reverse=True) and len(ordered) == 1 + len(row['negative_messages'])


def test_a_merged_classifier_needs_no_args_json(trained, tmp_path):
    from swift import merge_lora_main

    result, path = trained('seq_cls')
    merged = str(tmp_path / 'merged')
    merge_lora_main(dict(adapters=result['last_model_checkpoint'], output_dir=merged))
    os.path.exists(os.path.join(merged, 'args.json')) and os.remove(os.path.join(merged, 'args.json'))
    rows = infer_main(dict(model=merged, val_dataset=path, result_path=str(tmp_path / 'merged.jsonl')))
    adapter = answers(result, path, tmp_path)
    for row, other in zip(rows, adapter, strict=True):
        assert row['probabilities'] == pytest.approx(other['probabilities'], abs=1e-4)


def test_lines_of_a_pipe_are_answered(trained, monkeypatch, capsys):
    result, path = trained('seq_cls')
    row = json.loads(open(path, encoding='utf-8').readline())
    lines = [row['messages'][0]['content'], json.dumps(row), 'exit', 'never read']
    monkeypatch.setattr('sys.stdin', io.StringIO('\n'.join(lines)))
    said = infer_main(dict(adapters=result['last_model_checkpoint']))
    printed = capsys.readouterr().out.splitlines()
    assert len(said) == len(printed) == 2 and printed[0] == printed[1]
    assert printed[0].startswith(said[0]['response']) and said[0]['probabilities'] == said[1]['probabilities']


def test_pairs_of_a_pipe(trained, monkeypatch, capsys):
    result, _ = trained('reranker')
    monkeypatch.setattr('sys.stdin', io.StringIO('the fox ||| jumps over ||| the lazy dog\nalone\n'))
    said = infer_main(dict(adapters=result['last_model_checkpoint']))
    out, err = capsys.readouterr()
    assert len(said) == 1 and len(said[0]['response']) == 2
    assert out.startswith(f'{said[0]["ranking"][0] + 1}: ') and 'document' in err


def test_flags_of_generation_are_refused(trained):
    result, path = trained('seq_cls')
    with pytest.raises(SwiftError, match='--temperature has no effect with a model that generates nothing'):
        infer_main(dict(adapters=result['last_model_checkpoint'], val_dataset=path, temperature=0.5))


def test_words_that_were_cut_off_have_no_class(trained, tmp_path):
    result, _ = trained('token_cls')
    rows = [{'tokens': ['fox'] * 30, 'labels': ['high'] * 30}, {'tokens': ['dog'], 'labels': ['low']}]
    for side, places in (('right', slice(0, 8)), ('left', slice(22, 30))):
        (tmp_path / side).mkdir()
        path = write_rows(tmp_path / f'{side}.jsonl', rows)
        long, short = answers(result, path, tmp_path / side, max_length=20, truncation_strategy=side, metric='acc')
        kept = [place for place, name in enumerate(long['response']) if name is not None]
        assert 4 <= len(kept) < 30 and kept == list(range(30))[kept[0] : kept[-1] + 1]
        assert set(kept) >= set(range(30)[places][:4] if side == 'right' else range(30)[places][-4:])
        assert len(short['response']) == 1 and short['response'][0] is not None


@pytest.fixture(scope='module')
def encoder_dir(tmp_path_factory):
    from tests.helpers.tiny import save_encoder

    return save_encoder(tmp_path_factory.mktemp('encoder') / 'model')


@pytest.mark.slow
def test_encoders_too(trained, encoder_dir, tmp_path):
    result, path = trained('seq_cls', model=encoder_dir)
    rows = answers(result, path, tmp_path)
    loss = -np.mean([math.log(row['probabilities'][row['labels']]) for row in rows])
    assert loss == pytest.approx(evaluation(result)['eval_loss'], rel=1e-4)
    (tmp_path / 'ranked').mkdir()
    result, path = trained('reranker', model=encoder_dir)
    rows = answers(result, path, tmp_path / 'ranked', max_batch_size=1)
    each = [log_share(score, place < len(row['positive_messages'])) for row in rows for place, score in enumerate(row['response'])]
    assert -np.mean(each) == pytest.approx(evaluation(result)['eval_loss'], rel=1e-4)


def test_a_merged_embedding_model_tells_by_its_files_how_it_is_read(trained, tmp_path):
    from swift import merge_lora_main

    result, path = trained('embedding', pooling='mean')
    merged = str(tmp_path / 'merged')
    merge_lora_main(dict(adapters=result['last_model_checkpoint'], output_dir=merged))
    os.path.exists(os.path.join(merged, 'args.json')) and os.remove(os.path.join(merged, 'args.json'))
    rows = infer_main(dict(model=merged, val_dataset=path, result_path=str(tmp_path / 'merged.jsonl')))
    adapter = answers(result, path, tmp_path)
    assert np.abs(np.array([row['response'] for row in rows]) - [row['response'] for row in adapter]).max() < 1e-4
    other = infer_main(dict(model=merged, val_dataset=path, result_path=str(tmp_path / 'last.jsonl'), task_type='embedding', pooling='last'))
    assert np.abs(np.array([row['response'] for row in rows]) - [row['response'] for row in other]).max() > 1e-2
