"""Every command in the examples, the recipes, the readmes and the pages parses; every file they name is there."""

import os
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / 'README.md', ROOT / 'README_CN.md', *sorted((ROOT / 'docs').rglob('*.md'))]
SCRIPTS = sorted((ROOT / 'examples').rglob('*.sh')) + sorted((ROOT / 'recipes').rglob('*.sh'))


def commands_of(text: str) -> list[list[str]]:
    """The words after `swift` of every command line, continued lines joined, variables in front and comments dropped."""
    found = []
    for line in re.sub(r'\\\n\s*', ' ', text).splitlines():
        if not re.match(r'\s*([A-Z_]+=\S+\s+)*swift\s+[a-z]', line):
            continue
        words = shlex.split(line, comments=True)
        while '=' in words[0]:
            words.pop(0)
        found.append(words[1:])
    return found


def cases():
    for path in SCRIPTS:
        for words in commands_of(path.read_text(encoding='utf-8')):
            yield pytest.param(words, id=f'{path.relative_to(ROOT)}: {words[0]}')
    for path in PAGES:
        for block in re.findall(r'```(?:bash|shell|sh)\n(.*?)```', path.read_text(encoding='utf-8'), re.S):
            for words in commands_of(block):
                yield pytest.param(words, id=f'{path.relative_to(ROOT)}: {" ".join(words[:3])}')


@pytest.mark.parametrize('words', list(cases()))
def test_command_parses(words, monkeypatch, tmp_path):
    from swift.arguments import parse_args
    from swift.cli.main import METHODS
    from swift.core.plugins import load_plugins

    command, argv = words[0], words[1:]
    if command in METHODS:
        command, argv = 'rlhf', ['--rlhf_type', command, *argv]
    if command == 'doctor' or '--help' in argv:
        return
    monkeypatch.chdir(ROOT)
    argv = [word.replace('$work', str(tmp_path)) for word in argv]
    if {'...', '…'} & set(argv):  # "and whatever else": what a run can't do without
        argv = [word for word in argv if word not in ('...', '…')]
        argv += [] if '--dataset' in argv or command in ('infer', 'export', 'merge-lora') else ['--dataset', 'examples/data/chat.jsonl']
        argv += [] if {'--model', '--adapters', '--resume_from_checkpoint'} & set(argv) else ['--model', 'tiny']
    if '--resume_from_checkpoint' in argv:
        argv[argv.index('--resume_from_checkpoint') + 1] = trained_run(tmp_path)
    if '--external_plugins' in argv:
        load_plugins([argv[argv.index('--external_plugins') + 1]])
    parse_args(command, argv)


def trained_run(folder: Path) -> str:
    """A run with one checkpoint and its settings: what an earlier command of the same page leaves behind."""
    from swift.arguments import parse_args, save_args

    checkpoint = folder / 'checkpoint-1'
    checkpoint.mkdir()
    (checkpoint / 'adapter_config.json').write_text('{}', encoding='utf-8')
    save_args(parse_args('sft', ['--model', 'tiny', '--dataset', 'examples/data/chat.jsonl']), str(checkpoint))
    return str(folder)


def test_there_are_commands():
    """The collection above would pass if it found nothing."""
    assert len(SCRIPTS) >= 14
    assert sum(1 for _ in cases()) >= 30


@pytest.mark.parametrize('path', SCRIPTS + PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_are_there(path):
    text = path.read_text(encoding='utf-8')
    for name in re.findall(r'(?<![\w/])examples/[\w/.\-]+\w', text):
        assert (ROOT / name).exists(), name
    if path.suffix == '.md':
        for link in re.findall(r'\]\((?!https?:|#)([^)#]+)', text):
            assert (path.parent / link).exists(), f'{link} in {path.name}'


def test_continued_lines_and_variables():
    text = '# swift in a comment\nNPROC_PER_NODE=2 swift sft \\\n    --model tiny \\\n    --max_steps 3  # few\n'
    assert commands_of(text) == [['sft', '--model', 'tiny', '--max_steps', '3']]


def test_scripts_name_no_place_of_one_machine():
    for path in [*SCRIPTS, ROOT / 'Makefile', ROOT / '.ci' / 'run', *PAGES]:
        assert not re.search(r'(/home/|/root/)', path.read_text(encoding='utf-8')), path


def test_ci_script_is_executable():
    assert os.access(ROOT / '.ci' / 'run', os.X_OK)
