"""Commands as users wrote them over the generations: each parses, or is refused for exactly the reasons listed.

`data/commands.jsonl` holds the words of each command and every refusal; commands that lack only a
model or a data set (fragments) are completed and must then pass.
"""

import json
import os

import pytest

from swift.arguments import parse_args
from swift.core.errors import ArgumentsError

with open(os.path.join(os.path.dirname(__file__), 'data', 'commands.jsonl'), encoding='utf-8') as file:
    COMMANDS = [json.loads(line) for line in file]

MISSING = ('--model is required', '--dataset is required')


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def mistakes(command, words):
    try:
        parse_args(command, words, quiet=True)
    except ArgumentsError as error:
        return error.mistakes
    return []


@pytest.mark.parametrize('row', COMMANDS, ids=[f'{row["command"]}-{index}' for index, row in enumerate(COMMANDS)])
def test_command(row):
    assert mistakes(row['command'], row['words']) == row['refused']


@pytest.mark.parametrize(
    'row', [row for row in COMMANDS if row['refused'] and all(line.startswith(MISSING) for line in row['refused'])]
)
def test_fragments_pass_when_completed(row):
    words = list(row['words'])
    for line in row['refused']:
        flag = line.split()[0]
        words += [flag, 'something']
    assert mistakes(row['command'], words) == []


def test_resuming_commands_pass_once_the_checkpoint_is_there(tmp_path):
    """A resumed run needs neither model nor data: they stand in the checkpoint's args.json."""
    from swift.arguments import save_args

    resumed = [row for row in COMMANDS if any('--resume_from_checkpoint' in line for line in row['refused'])]
    for row in resumed:
        checkpoint = tmp_path / row['words'][row['words'].index('--resume_from_checkpoint') + 1]
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / 'adapter_config.json').write_text('{}')
        save_args(parse_args('sft', ['--model', 'm', '--dataset', 'd'], quiet=True), str(checkpoint))
        left = [line for line in row['refused'] if '--resume_from_checkpoint' not in line]
        assert mistakes(row['command'], row['words']) == left
    assert len(resumed) >= 6
