"""The pages on arguments say what the argument classes say; every flag is explained in both languages and read somewhere."""

import ast
import json
import os
from pathlib import Path

import pytest

from swift.arguments.backends import BackendArgs
from swift.arguments.commands import CLASSES
from swift.arguments.docs import ROOT, SECTIONS, main, page
from swift.arguments.flags import flags_of


@pytest.mark.parametrize('language', ['en', 'zh'])
def test_the_page_is_current(language):
    with open(os.path.join(ROOT, 'docs', language, 'arguments.md'), encoding='utf-8') as file:
        assert file.read() == page(language), 'run: python -m swift.arguments.docs'


def test_check_passes():
    assert main(['--check']) == 0


def test_every_flag_is_on_both_pages_and_every_chinese_line_is_used():
    with open(os.path.join(ROOT, 'docs', 'zh', 'arguments.json'), encoding='utf-8') as file:
        chinese = json.load(file)
    flags = {name for cls in CLASSES.values() for name in flags_of(cls)}
    pages = {language: page(language) for language in ('en', 'zh')}
    for name in flags:
        assert f'| `--{name}` |' in pages['en'] and f'| `--{name}` |' in pages['zh']
    assert {key.rpartition('.')[2] for key in chinese} == flags
    groups = {group for group, *_ in SECTIONS}
    assert {key.rpartition('.')[0] for key in chinese} <= {'', *groups}
    assert all(text.endswith('。') for text in chinese.values())


def test_every_group_has_a_section():
    groups = {flag.group.__name__ for cls in CLASSES.values() for flag in flags_of(cls).values()}
    assert groups == {group for group, *_ in SECTIONS}


SPOKEN_FOR = {'tuner_backend'} | {name for name in BackendArgs.__dataclass_fields__ if name.startswith(('vllm_', 'sglang_', 'lmdeploy_'))}
"""A flag with a single value, where there is nothing to read; settings that `engine_settings` hands to their engine by its own names."""


def test_every_flag_is_read_by_some_room():
    """A flag that no room reads would be accepted and ignored."""
    words: set[str] = set()
    package = Path(ROOT) / 'swift'
    for path in package.rglob('*.py'):
        relative = path.relative_to(package).parts
        if relative[0] == 'arguments' and relative[-1] not in ('parse.py', 'inherit.py'):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Attribute) and _holds_arguments(node.value):
                words.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
    flags = {name for cls in CLASSES.values() for name in flags_of(cls)}
    assert sorted(flags - words - SPOKEN_FOR) == []


def _holds_arguments(node: ast.expr) -> bool:
    """`args`, `self.args`, `data_args`, …"""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ''
    return name.endswith('args')
