"""Help texts, made from the argument classes."""

from __future__ import annotations

import json
import shutil
import textwrap
from typing import Any

from swift.arguments.commands import CLASSES, TRAINING
from swift.arguments.flags import Flag, flags_of, help_of
from swift.cli.main import COMMANDS, LAUNCHED, METHODS

TITLES = {
    'ModelArgs': 'Model',
    'DataArgs': 'Data',
    'TemplateArgs': 'Template',
    'MediaArgs': 'Images, videos and sounds',
    'TunerArgs': 'What learns',
    'RlhfArgs': 'Preferences',
    'TrainArgs': 'Training',
    'ScoringArgs': 'Vectors and scores',
    'TaskArgs': 'Tasks other than the next token',
    'GenerationArgs': 'Generation',
    'EngineArgs': 'Engine',
    'ClientArgs': 'A server that answers',
    'BackendArgs': 'vLLM, SGLang, LMDeploy',
    'InferArgs': 'Answering',
    'AppArgs': 'Chat page',
    'QuestionArgs': 'Questions with known answers',
    'EvalArgs': 'Evaluation',
    'SampleArgs': 'Sampling',
    'DeployArgs': 'Serving',
    'ExportArgs': 'Export',
    'PreviewArgs': 'Preview',
    'VerifyArgs': 'Verify',
    'RunArgs': 'Run',
}
"""Group → its heading, in the order of help."""

_FIRST = ('PreviewArgs', 'VerifyArgs', 'InferArgs', 'AppArgs', 'EvalArgs', 'SampleArgs', 'DeployArgs', 'ExportArgs', 'RlhfArgs')

USAGE = {
    'rlhf': '[--rlhf_type METHOD] --model MODEL --dataset DATA … [--flag value …] | config.yaml',
    'app': '(--model MODEL | --adapters [NAME=]CHECKPOINT … | --base_url URL) [--server_port PORT] [--flag value …]',
    'infer': '(--model MODEL | --adapters CHECKPOINT | --base_url URL) [--val_dataset DATA …] [--flag value …]',
    'eval': '(--model MODEL | --adapters CHECKPOINT | --eval_url URL) --eval_dataset [KIND:]FILE … [--flag value …]',
    'sample': '(--model MODEL | --adapters CHECKPOINT) --dataset DATA … [--flag value …]',
    'deploy': '(--model MODEL | --adapters [NAME=]CHECKPOINT …) [--port PORT] [--flag value …]',
    'export': '--adapters CHECKPOINT --merge_lora true [--flag value …]',
    'merge-lora': '--adapters CHECKPOINT [--output_dir DIR] [--flag value …]',
    'verify': '--adapters CHECKPOINT [--merged_model DIR] [--flag value …]',
    'doctor': '',
}
"""Command → its usage line; the others train."""


def overview() -> str:
    """The text of `swift --help`."""
    width = max(map(len, COMMANDS))
    lines = ['usage: swift COMMAND [--flag value …] | swift COMMAND config.yaml', '', 'Commands:']
    lines += [f'  {name:<{width}}  {text}' for name, (_, text) in COMMANDS.items()]
    lines += [
        '',
        f'swift {"|".join(METHODS)} is short for swift rlhf --rlhf_type …',
        'swift COMMAND --help lists the flags of a command; swift --version shows the version.',
        'Flags come from the command line, then --config file.yaml|json, then the environment, then defaults.',
    ]
    return '\n'.join(lines)


def command_help(command: str) -> str:
    """The text of `swift COMMAND --help`, as wide as the terminal."""
    width = max(60, min(shutil.get_terminal_size((100, 24)).columns, 160))
    usage = USAGE.get(command, '--model MODEL --dataset DATA … [--flag value …] | config.yaml')
    lines = textwrap.wrap(f'usage: swift {command} {usage}', width, subsequent_indent=' ' * 7, break_on_hyphens=False)
    lines += ['', COMMANDS[command][1]]
    if command in CLASSES:
        lines += _flags(command, width)
        lines += _notes(command, width)
    return '\n'.join(lines)


def groups(command: str) -> dict[str, list[Flag]]:
    """Heading → the flags below it."""
    found: dict[str, list[Flag]] = {}
    for flag in flags_of(CLASSES[command]).values():
        found.setdefault(flag.group.__name__, []).append(flag)
    first = (*_FIRST, 'QuestionArgs') if command == 'eval' else _FIRST
    order = sorted(found, key=lambda name: (name not in first, list(TITLES).index(name)))
    return {TITLES[name]: found[name] for name in order}


def shown_default(value: Any) -> str:
    """A default as it would be written on a command line."""
    if value is None or value == [] or value == {}:
        return 'none'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ' '.join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _flags(command: str, width: int) -> list[str]:
    texts = help_of(CLASSES[command])
    lines: list[str] = []
    for title, flags in groups(command).items():
        lines += ['', f'{title}:']
        for flag in flags:
            choices = f'; one of {", ".join(flag.choices)}' if flag.choices else ''
            text = f'{texts[flag.name]} [default: {shown_default(flag.default)}{choices}]'
            lines += _entry(f'--{flag.name} {flag.type_name}', text, width)
    return lines


def _entry(name: str, text: str, width: int) -> list[str]:
    column = 36
    wrapped = textwrap.wrap(text, width - column, break_long_words=False, break_on_hyphens=False)
    if len(name) + 4 > column:
        return [f'  {name}', *(' ' * column + line for line in wrapped)]
    return [f'  {name:<{column - 2}}{wrapped[0]}', *(' ' * column + line for line in wrapped[1:])]


def _notes(command: str, width: int) -> list[str]:
    notes = ['--config FILE (or a file as first word) gives flags as YAML or JSON; the command line wins.']
    notes += ['Lists are written with spaces or commas, a bool flag alone means true, --flag=value works too.']
    if command in TRAINING:
        notes += ['Any field of transformers.TrainingArguments is a flag too. Flags of ms-swift 2 to 4 are understood.']
    if command in LAUNCHED:
        notes += [
            'NPROC_PER_NODE=2 starts two processes; NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT join machines.'
        ]
    return ['', *(line for note in notes for line in textwrap.wrap(note, width))]
