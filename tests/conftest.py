"""Fixtures for every room."""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
os.environ['HF_HUB_OFFLINE'] = '1'

import pytest  # noqa: E402

import swift  # noqa: E402, F401  (before transformers, for which it may stand in for torchvision)
from tests.helpers.tiny import save_tiny  # noqa: E402


@pytest.fixture(scope='session')
def tiny_dir(tmp_path_factory) -> str:
    """Folder of a random 2-layer Qwen3 with tokenizer and ChatML template. Read only."""
    return save_tiny(tmp_path_factory.mktemp('tiny') / 'model')


@pytest.fixture(scope='session')
def tokenizer():
    """The tokenizer of `tiny_dir`."""
    from tests.helpers.tiny import build_tokenizer

    return build_tokenizer()
