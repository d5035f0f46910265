"""Embeddings and rerankers learn: small random models, from the first step to what they find among texts they have not seen."""

import json
import random

import pytest

from swift.pipelines.train import sft_main

WORDS = 16


@pytest.fixture(scope='module')
def wordy_dir(tmp_path_factory) -> str:
    """A random 2-layer Qwen3 whose tokens are the words a0 … b39 (and what the question of a generative reranker needs)."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from tests.helpers.tiny import build_model

    folder = str(tmp_path_factory.mktemp('wordy') / 'model')
    words = ['<unk>', '<eos>', '<pad>', 'yes', 'no', 'Query', 'Document', ':', *(f'{side}{n}' for side in 'ab' for n in range(WORDS))]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token='<unk>'))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(':', 'isolated')])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token='<unk>', eos_token='<eos>', pad_token='<pad>', model_max_length=512)
    build_model(vocab_size=len(words), eos_token_id=1, pad_token_id=2, initializer_range=0.1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def groups(count: int, seed: int, negatives: int = 1) -> list[dict]:
    """A text of four words, its translation (every a-word is the b-word of the same number), and translations with two words wrong."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        chosen = draw.sample(range(WORDS), 4)
        row = {'query': _text('a', chosen), 'positive': _text('b', chosen), 'negative': []}
        for _ in range(negatives):
            wrong = list(chosen)
            for place in draw.sample(range(4), 2):
                wrong[place] = draw.randrange(WORDS)
            row['negative'].append(_text('b', wrong))
        rows.append(row)
    return rows


def _text(side: str, numbers: list[int]) -> str:
    return ' '.join(f'{side}{n}' for n in numbers)


def sky(count: int, seed: int) -> list[dict]:
    """A question, a sentence about one of three things that answer it, and two about others."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        right, others = draw.choice(['moon', 'snow', 'owl']), draw.sample(['cat', 'house', 'lake', 'pen', 'boat', 'dog', 'apple', 'cup'], 2)
        say = draw.choice(['I saw the {} today.', 'Where is the {} now?', 'She has a {} at home.', 'The {} is new.']).format
        rows.append({'query': 'What is above us?', 'positive': say(right), 'negative': [say(other) for other in others]})
    return rows


def trained(model: str, folder, make=groups, sizes=(2000, 200), **flags) -> tuple[dict[str, float], dict[str, float]]:
    """The figures of the evaluation before training, and after it."""
    for name, count, seed in (('train', sizes[0], 0), ('val', sizes[1], 1)):
        (folder / f'{name}.jsonl').write_text('\n'.join(json.dumps(row) for row in make(count, seed)))
    result = sft_main({
        'model': model, 'dataset': str(folder / 'train.jsonl'), 'val_dataset': str(folder / 'val.jsonl'), 'output_dir': str(folder / 'out'),
        'tuner_type': 'full', 'learning_rate': 3e-3, 'lr_scheduler_type': 'cosine', 'warmup_ratio': 0.1, 'logging_steps': 20,
        'per_device_train_batch_size': 32, 'per_device_eval_batch_size': 64, 'save_strategy': 'no', 'eval_strategy': 'steps', 'eval_on_start': True,
        'eval_steps': flags['max_steps'], 'report_to': 'none', **flags,
    })  # fmt: skip
    first, *_, last = (line for line in result['log_history'] if 'eval_loss' in line)
    return first, last


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path / 'cache'))


def test_infonce_finds_the_translation_among_200(wordy_dir, tmp_path):
    """recall@1 among the 400 texts of 200 unseen rows."""
    before, after = trained(wordy_dir, tmp_path, task_type='embedding', infonce_temperature=0.05, max_steps=80)
    assert before['eval_recall@1'] < 0.05
    assert after['eval_recall@1'] >= 0.95 and after['eval_mrr'] >= 0.97


def test_infonce_learns_in_micro_batches_as_well(wordy_dir, tmp_path):
    """Through stored gradients: 4 micro-batches of 8 rows a step."""
    small = dict(per_device_train_batch_size=8, gradient_accumulation_steps=4)
    _, after = trained(wordy_dir, tmp_path, task_type='embedding', infonce_temperature=0.05, max_steps=80, **small)
    assert after['eval_recall@1'] >= 0.95


@pytest.mark.parametrize('loss', ['pointwise_reranker', 'listwise_reranker'])
def test_a_reranker_tells_the_translation_from_a_wrong_one(wordy_dir, tmp_path, loss):
    before, after = trained(wordy_dir, tmp_path, task_type='reranker', loss_type=loss, max_steps=120)
    assert before['eval_ndcg@10'] < 0.87  # one of two documents at random: (1 + 1 / log2(3)) / 2 = 0.815
    assert after['eval_accuracy'] >= 0.95 and after['eval_ndcg@10'] >= 0.98 and after['eval_mrr'] >= 0.98


def test_a_generative_reranker_of_random_words(wordy_dir, tmp_path):
    _, after = trained(wordy_dir, tmp_path, task_type='generative_reranker', use_chat_template=False, max_steps=160)
    assert after['eval_accuracy'] >= 0.9 and after['eval_ndcg@10'] >= 0.98


@pytest.mark.slow
def test_the_built_in_model_as_a_generative_reranker(tmp_path):
    """One of three at random: accuracy 1/3."""
    before, after = trained(
        'tiny', tmp_path, sky, (80, 40), task_type='generative_reranker', loss_type='listwise_reranker', tuner_type='lora', max_steps=16,
        per_device_train_batch_size=4, per_device_eval_batch_size=16, learning_rate=4e-3,
    )  # fmt: skip
    assert before['eval_accuracy'] < 0.6
    assert after['eval_accuracy'] >= 0.95 and after['eval_ndcg@10'] >= 0.97
