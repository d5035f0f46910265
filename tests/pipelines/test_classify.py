"""Whole runs of seq_cls and token_cls: what is written, what plain libraries make of it, and that it learns."""

import json
import random

import pytest
import torch

from swift import infer_main, merge_lora_main, sft_main
from swift.core.errors import SwiftError
from tests.helpers.tiny import save_encoder, save_tiny
from tests.pipelines.conftest import write_rows

QUICK = dict(max_steps=6, per_device_train_batch_size=4, learning_rate=1e-2, report_to='none', logging_steps=2, add_version=False)


def texts(count, label, seed=0):
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [draw.choice(['fox', 'dog', 'lazy', 'quick', 'world']) for _ in range(draw.randint(2, 9))]
        rows.append({'messages': [{'role': 'user', 'content': ' '.join(words)}], 'label': label(words)})
    return rows


def by_size(words):
    return 'short' if len(words) < 4 else 'middle' if len(words) < 7 else 'long'


@pytest.fixture(scope='module')
def encoder_dir(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp('encoder') / 'model')


@pytest.fixture(params=['decoder', 'encoder'])
def model_dir(request, tiny_dir, encoder_dir):
    return tiny_dir if request.param == 'decoder' else encoder_dir


def test_an_adapter_is_a_classifier_for_everybody(model_dir, tmp_path):
    """Plain PEFT on plain transformers gives the training's own scores; so does the merged model."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    data = write_rows(tmp_path / 'rows.jsonl', texts(40, by_size))
    result = sft_main(dict(model=model_dir, task_type='seq_cls', dataset=data, split_dataset_ratio=0.25, output_dir=str(tmp_path / 'out'), **QUICK))
    checkpoint = result['last_model_checkpoint']
    saved = json.load(open(f'{checkpoint}/args.json'))
    assert (saved['num_labels'], saved['class_names'], saved['problem_type']) == (3, ['long', 'middle', 'short'], 'single_label_classification')
    assert json.load(open(f'{checkpoint}/adapter_config.json'))['task_type'] == 'SEQ_CLS'
    evaluated = [entry for entry in result['log_history'] if 'eval_accuracy' in entry][-1]
    assert {'eval_f1_macro', 'eval_f1_micro', 'eval_precision', 'eval_recall'} <= set(evaluated)

    merge_lora_main(dict(adapters=[checkpoint], output_dir=str(tmp_path / 'merged')))
    merged = str(tmp_path / 'merged')
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    plain = AutoModelForSequenceClassification.from_pretrained(merged).eval()
    assert plain.config.id2label == {0: 'long', 1: 'middle', 2: 'short'}
    base = AutoModelForSequenceClassification.from_pretrained(model_dir, num_labels=3)
    tuned = PeftModel.from_pretrained(base, checkpoint).eval()
    rows = [row['messages'] for row in texts(6, by_size, seed=1)]
    if tokenizer.chat_template:
        encoded = [tokenizer.apply_chat_template(row, add_generation_prompt=True, return_dict=True, return_tensors='pt') for row in rows]
    else:
        encoded = [tokenizer(row[0]['content'], return_tensors='pt') for row in rows]
    with torch.no_grad():
        scores = torch.cat([plain(**row).logits for row in encoded])
        torch.testing.assert_close(torch.cat([tuned(**row).logits for row in encoded]), scores, rtol=1e-3, atol=1e-4)
    ours = infer(dict(adapters=[checkpoint]), rows, tmp_path / 'ask.jsonl')
    again = infer(dict(model=merged), rows, tmp_path / 'ask.jsonl')
    for row, other, probabilities in zip(ours, again, scores.softmax(-1).tolist(), strict=True):
        assert list(row['probabilities'].values()) == pytest.approx(probabilities, abs=1e-3)
        assert row['response'] == other['response'] and list(row['probabilities']) == ['long', 'middle', 'short']


def infer(settings, rows, path):
    return infer_main(dict(**settings, val_dataset=write_rows(path, [{'messages': row} for row in rows])))


def test_a_classifier_is_trained_further_with_its_own_classes(tiny_dir, tmp_path):
    data = write_rows(tmp_path / 'rows.jsonl', texts(24, by_size))
    flags = dict(task_type='seq_cls', tuner_type='full', **{**QUICK, 'learning_rate': 1e-3, 'max_steps': 2})
    names = ['short', 'middle', 'long', 'endless']
    first = sft_main(dict(model=tiny_dir, class_names=names, dataset=data, output_dir=str(tmp_path / 'one'), **flags))
    second = sft_main(dict(model=first['last_model_checkpoint'], dataset=data, output_dir=str(tmp_path / 'two'), **flags))
    assert json.load(open(f'{second["last_model_checkpoint"]}/config.json'))['id2label'] == {str(n): name for n, name in enumerate(names)}
    with pytest.raises(SwiftError, match='has a head for 4 classes'):
        sft_main(dict(model=first['last_model_checkpoint'], num_labels=3, class_names=['short', 'middle', 'long'], dataset=data,
                      output_dir=str(tmp_path / 'three'), **flags))  # fmt: skip


@pytest.mark.parametrize(('label', 'problem', 'metric'), [
    (lambda words: sorted(set(words)), 'multi_label_classification', 'f1_micro'),
    (lambda words: len(words) / 4, 'regression', 'spearman'),
], ids=['several', 'value'])  # fmt: skip
def test_several_classes_and_values(model_dir, tmp_path, label, problem, metric):
    data = write_rows(tmp_path / 'rows.jsonl', texts(32, label))
    flags = {**QUICK, 'max_steps': 12, 'per_device_train_batch_size': 8}
    result = sft_main(dict(model=model_dir, task_type='seq_cls', dataset=data, val_dataset=data, output_dir=str(tmp_path / 'out'), **flags))
    assert json.load(open(f'{result["run_dir"]}/args.json'))['problem_type'] == problem
    evaluated = [entry for entry in result['log_history'] if f'eval_{metric}' in entry]
    losses = [entry['loss'] for entry in result['log_history'] if 'loss' in entry]
    assert evaluated and losses[-1] < losses[0] and evaluated[-1][f'eval_{metric}'] > 0.3


def test_a_stream_needs_to_be_told_its_classes(tiny_dir, tmp_path):
    data = write_rows(tmp_path / 'rows.jsonl', texts(24, by_size))
    flags = dict(model=tiny_dir, task_type='seq_cls', dataset=data, streaming=True, output_dir=str(tmp_path / 'out'), **QUICK)
    with pytest.raises(SwiftError, match='the classes are not known; give --num_labels N'):
        sft_main(flags)
    told = dict(class_names=['long', 'middle', 'short'], problem_type='single_label_classification')
    assert sft_main({**flags, **told})['global_step'] == 6


def test_unknown_classes_of_validation_rows_are_bad_rows(tiny_dir, tmp_path):
    data = write_rows(tmp_path / 'rows.jsonl', texts(24, by_size))
    val = write_rows(tmp_path / 'val.jsonl', [*texts(3, by_size), {'query': 'fox', 'label': 'endless'}])
    with pytest.raises(SwiftError, match="val.jsonl:4: unknown class 'endless'; known: long, middle, short"):
        sft_main(dict(model=tiny_dir, task_type='seq_cls', dataset=data, val_dataset=val, strict=True, output_dir=str(tmp_path / 'out'), **QUICK))


# ---- it learns

NAMES = ['Li', 'Ada', 'Ben', 'Mia']
CITIES = ['Rome', 'Oslo', 'Kyiv', 'Graz']
"""No two begin with the same letter: what a decoder knows of a word at its first token."""


def tagged(count, seed):
    """Names (of one or two words) and cities in short sentences; a name is one whatever it stands beside, cities likewise."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words, tags = [], []
        for _ in range(draw.randint(2, 4)):
            for _ in range(draw.randint(1, 3)):
                words.append(draw.choice(['the', 'fox', 'is', 'in', 'and', 'you']))
                tags.append('O')
            if draw.random() < 0.5:
                words += [draw.choice(NAMES), draw.choice(NAMES)]
                tags += ['B-PER', 'I-PER']
            else:
                words.append(draw.choice(CITIES))
                tags.append('B-LOC')
        rows.append({'tokens': words, 'ner_tags': tags})
    return rows


def test_words_are_learned(model_dir, tmp_path):
    train, val = (write_rows(tmp_path / f'{name}.jsonl', tagged(count, seed)) for name, count, seed in (('train', 200, 0), ('val', 60, 1)))
    result = sft_main(dict(
        model=model_dir, task_type='token_cls', tuner_type='full', dataset=train, val_dataset=val, output_dir=str(tmp_path / 'out'),
        **{**QUICK, 'max_steps': 150, 'per_device_train_batch_size': 16, 'learning_rate': 5e-3, 'save_steps': 150, 'logging_steps': 30},
    ))  # fmt: skip
    evaluated = [entry for entry in result['log_history'] if 'eval_f1' in entry][-1]
    assert evaluated['eval_accuracy'] >= 0.95 and evaluated['eval_f1'] >= 0.9
    assert json.load(open(f'{result["last_model_checkpoint"]}/config.json'))['id2label'] == {'0': 'O', '1': 'B-LOC', '2': 'B-PER', '3': 'I-PER'}


@pytest.mark.slow
def test_digits_are_read_better_than_by_a_bag_of_tokens(tmp_path):
    """scikit-learn's digits as eight lines of signs. Logistic regression on the counts of tokens, and of whole lines, on the same rows."""
    datasets = pytest.importorskip('sklearn.datasets')
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    from tests.helpers.tiny import build_tokenizer

    digits = datasets.load_digits()
    lines = [[''.join('.oO#'[int(value) * 4 // 17] for value in line) for line in image] for image in digits.images]
    order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(0)).tolist()
    train, val = order[:1400], order[1400:]
    tokenizer, bags = build_tokenizer(), {}
    for name, analyser in (('lines', lambda i: lines[i]), ('tokens', lambda i: tokenizer('\n'.join(lines[i]))['input_ids'])):
        counts = CountVectorizer(analyzer=analyser)
        model = LogisticRegression(max_iter=3000).fit(counts.fit_transform(train), digits.target[train])
        bags[name] = model.score(counts.transform(val), digits.target[val])
    files = [
        write_rows(tmp_path / f'{name}.jsonl', [{'text': '\n'.join(lines[i]), 'label': int(digits.target[i])} for i in part])
        for name, part in (('train', train), ('val', val))
    ]
    result = sft_main(dict(
        model=save_tiny(tmp_path / 'tiny'), task_type='seq_cls', tuner_type='full', dataset=files[0], val_dataset=files[1],
        output_dir=str(tmp_path / 'out'), report_to='none', num_train_epochs=8, per_device_train_batch_size=32, learning_rate=3e-3,
        save_strategy='no', eval_strategy='epoch', logging_steps=100,
    ))  # fmt: skip
    accuracy = [entry['eval_accuracy'] for entry in result['log_history'] if 'eval_accuracy' in entry][-1]
    print(f'digits: accuracy {accuracy:.3f}; logistic regression on bags: {bags}')
    assert accuracy > max(bags.values()) + 0.05
