"""Rows of a shape of your own, turned into messages.

swift sft --external_plugins examples/custom/dataset.py --dataset sums ...
"""

from pathlib import Path

from swift.dataset import DatasetMeta, register_dataset


def preprocess(row):
    """One row of the file in, one row with `messages` out; None drops the row."""
    if row['task'] == 'mul':
        return None
    question = row['messages'][0]['content']
    return {'messages': [{'role': 'user', 'content': f'Quick: {question}'}, {'role': 'assistant', 'content': row['solution']}]}


register_dataset(
    DatasetMeta(
        dataset_name='sums',
        dataset_path=str(Path(__file__).parents[1] / 'data' / 'arithmetic.jsonl'),
        preprocess_func=preprocess,
    )
)
