"""argv, a file, the environment or Python values → checked and settled arguments, or one error with every mistake."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swift.arguments import later
from swift.arguments.aliases import ALIASES, ENVIRONMENT, GONE, IDLE, SETTLED, Nothing, canonical
from swift.arguments.checks import conflict_mistakes, effect_mistakes, range_mistakes, word_mistakes
from swift.arguments.commands import CLASSES, Arguments
from swift.arguments.config import SUFFIXES, read_config
from swift.arguments.convert import Words, convert
from swift.arguments.derive import Facts, settle
from swift.arguments.flags import Flag, flags_of
from swift.arguments.inherit import inherit, require
from swift.arguments.media import MEDIA, split_media
from swift.arguments.methods import method_defaults
from swift.core.errors import ArgumentsError, did_you_mean
from swift.core.log import get_logger

ENVIRONMENT_LEVEL, MODEL_LEVEL, FILE_LEVEL, COMMAND_LEVEL = range(4)
"""Where a value comes from, weakest first. MODEL_LEVEL: a key of --model_kwargs that is a flag."""


@dataclass
class Entry:
    """One flag as it was written."""

    name: str
    raw: Any
    source: str
    level: int
    spelling: str
    """How the user wrote it, for messages."""


@dataclass
class Report:
    """What is found on the way: mistakes stop the command, notes are told."""

    mistakes: list[str] = field(default_factory=list)
    soft: list[str] = field(default_factory=list)
    """Unknown flags and flags without effect: mistakes unless --ignore_args_error."""
    notes: list[str] = field(default_factory=list)
    later: dict[str, list[str]] = field(default_factory=dict)
    """Reason → the flags of later capabilities that it refuses."""
    failed: set[str] = field(default_factory=set)
    """Flags that were given, but wrongly; nobody needs to hear that they are missing too."""


@dataclass
class Given:
    """A flag's typed value, and whence."""

    value: Any
    source: str
    level: int
    spelling: str
    join: bool = False


def parse_args(command: str, argv: Any = None, *, quiet: bool = False) -> Any:
    """Arguments of a command: checked, every default derived, settled.

    `argv` is a list of words (None: those of this process), a mapping of flags to values, or an arguments object.
    Reads no model and no data; an args.json is read where a checkpoint is named. `quiet` leaves the hints out.

    Raises ArgumentsError with every mistake.
    """
    if isinstance(argv, Arguments) and argv.command is not None:
        return argv
    cls = CLASSES[command]
    report = Report()
    entries = _environment(cls) + _entries(command, cls, argv, report)
    given = _settle_entries(command, entries, report)
    report.mistakes += [f'{", ".join(dict.fromkeys(flags))}: {reason}' for reason, flags in report.later.items()]
    explicit = {name: (item.value, item.source) for name, item in given.items()}
    values = {name: flag.default for name, flag in flags_of(cls).items()} | {n: v for n, (v, _) in explicit.items()}
    settings, notes = inherit(command, explicit, values, report.mistakes)
    report.notes += notes
    _check(command, cls, settings, explicit, report)
    if settings.get('ignore_args_error', (False, ''))[0]:
        report.notes += report.soft
    else:
        report.mistakes += report.soft
    if report.mistakes:
        raise ArgumentsError(dict.fromkeys(report.mistakes))
    if not quiet:
        for note in dict.fromkeys(report.notes):
            get_logger().warning(note)
    return settle(cls, command, settings, Facts())


def _check(
    command: str, cls: type, settings: dict[str, tuple[Any, str]], explicit: Mapping[str, Any], report: Report
) -> None:
    values = {name: flag.default for name, flag in flags_of(cls).items()} | {n: v for n, (v, _) in settings.items()}
    values |= {name: value for name, value in method_defaults(command, values).items() if name not in settings}
    wrong = range_mistakes(values, settings) + word_mistakes(values, settings)
    report.mistakes += [f'{_shown(name)}{_origin(settings.get(name))} {mistake}' for name, mistake in wrong]
    report.mistakes += require(command, values, report.failed)
    report.mistakes += conflict_mistakes(command, values, explicit)
    if command == 'export' and not (values['merge_lora'] or values['push_to_hub'] or report.later):
        report.mistakes.append('nothing to export: give --merge_lora true (or --push_to_hub true)')
    if report.failed & {'rlhf_type', 'task_type'}:
        return  # which flags act depends on what could not be read
    for name, mistake, warn in effect_mistakes(command, values, explicit):
        (report.notes if warn else report.soft).append(f'{_shown(name)} {mistake}')


def _shown(name: str) -> str:
    return f'--{name}'


def _origin(setting: tuple[Any, str] | None) -> str:
    """Where a value comes from that is not in plain sight."""
    source = setting[1] if setting else ''
    return f' ({source})' if source.startswith('environment ') or source.endswith('--model_kwargs') else ''


# ---------------------------------------------------------------- reading


def _environment(cls: type) -> list[Entry]:
    entries = []
    for variable, flag in ENVIRONMENT.items():
        target = ALIASES[flag].new if flag in ALIASES else flag
        if os.environ.get(variable) and target in flags_of(cls):
            words = Words([os.environ[variable]])
            entries.append(Entry(flag, words, f'environment {variable}', ENVIRONMENT_LEVEL, variable))
    return entries


def _entries(command: str, cls: type, argv: Any, report: Report) -> list[Entry]:
    if isinstance(argv, Arguments):
        changed = {n: getattr(argv, n) for n, flag in flags_of(type(argv)).items() if getattr(argv, n) != flag.default}
        return _from_mapping(changed, 'python', COMMAND_LEVEL)
    if isinstance(argv, Mapping):
        entries = _from_mapping(argv, 'python', COMMAND_LEVEL)
    elif argv is None or (isinstance(argv, Sequence) and not isinstance(argv, str)):
        words = [
            os.fspath(word) if isinstance(word, os.PathLike) else str(word)
            for word in (sys.argv[1:] if argv is None else argv)
        ]
        entries = _from_words(command, words, report)
    else:
        raise TypeError(
            f'arguments come as a list of words, a mapping or an Arguments object, not {type(argv).__name__}'
        )
    configs = [entry for entry in entries if entry.name == 'config']
    entries = [entry for entry in entries if entry.name != 'config']
    for entry in configs:
        entries = _from_file(entry, report) + entries
    return entries


def _from_mapping(values: Mapping[str, Any], source: str, level: int) -> list[Entry]:
    return [Entry(_plain(name), value, source, level, _plain(name)) for name, value in values.items()]


def _from_file(entry: Entry, report: Report) -> list[Entry]:
    paths = list(entry.raw) if isinstance(entry.raw, Words) else [str(entry.raw)]
    if len(paths) != 1:
        report.mistakes.append(f'--config takes one file, got {len(paths)}')
        return []
    try:
        return _from_mapping(read_config(paths[0]), f'file {paths[0]}', FILE_LEVEL)
    except ValueError as error:
        report.mistakes.append(f'--config: {error}')
        return []


def _from_words(command: str, words: list[str], report: Report) -> list[Entry]:
    """Cut a command line at its flags. A file in front of the first flag is the configuration."""
    entries: list[Entry] = []
    loose: list[str] = []
    for word in words:
        if _is_flag(word):
            name, equals, value = word[2:].partition('=')
            entries.append(
                Entry(_plain(name), Words([value] if equals else []), 'command line', COMMAND_LEVEL, _plain(name))
            )
            closed = bool(equals)
        elif not entries:
            loose.append(word)
        elif closed:
            report.mistakes.append(
                f'{word!r} follows --{entries[-1].spelling}=…, which has its value; give several values as --flag a b'
            )
        else:
            entries[-1].raw.append(word)
    for position, word in enumerate(loose):
        if position == 0 and word.endswith(SUFFIXES):
            entries.insert(0, Entry('config', Words([word]), 'command line', COMMAND_LEVEL, 'config'))
        else:
            report.mistakes.append(
                f'{word!r} is not a flag; write --flag {word}, or a .yaml or .json file first (see swift {command} --help)'
            )
    return entries


def _is_flag(word: str) -> bool:
    return word.startswith('--') and len(word) > 2 and (word[2].isalpha() or word[2] == '_')


def _plain(name: str) -> str:
    return str(name).strip().lstrip('-').replace('-', '_')


# ---------------------------------------------------------------- names and values


def _settle_entries(command: str, entries: list[Entry], report: Report) -> dict[str, Given]:
    """Typed values by today's names; the strongest source wins, and two spellings of one source must agree."""
    found: dict[str, Given] = {}
    for entry in entries:
        for name, given in _typed(command, entry, report):
            old = found.get(name)
            if old is None or old.level < given.level:
                found[name] = given
            elif old.level == given.level:
                found[name] = _merge(name, old, given, report)
    _route_media(command, found, report)
    return found


def _route_media(command: str, found: dict[str, Given], report: Report) -> None:
    """Keys of --model_kwargs that are budgets of media become those flags; they are none of from_pretrained's."""
    if 'model_kwargs' in found:
        whole = found['model_kwargs']
        whole.value, media = split_media(whole.value)
        taken: dict[str, Given] = {}
        for key, value in media.items():
            entry = Entry(key.lower(), value, f'{whole.source}, in --model_kwargs', MODEL_LEVEL, f'model_kwargs {key}')
            for name, given in _typed(command, entry, report):
                taken[name] = _merge(name, taken[name], given, report) if name in taken else given
        found.update({name: given for name, given in taken.items() if name not in found or found[name].level < MODEL_LEVEL})
        if media and not whole.value:
            del found['model_kwargs']
    rates = [found[name] for name in ('fps', 'nframes') if name in found]
    if len(rates) == 2 and (rates[0].level != rates[1].level or rates[0].level == ENVIRONMENT_LEVEL):
        del found['nframes' if rates[0].level > rates[1].level else 'fps']  # each says how many frames; the stronger source counts


def _merge(name: str, old: Given, new: Given, report: Report) -> Given:
    """One flag from two entries of the same source."""
    if name == 'training_args':
        return Given({**old.value, **new.value}, new.source, new.level, new.spelling)
    if old.join or new.join:
        return Given(list(dict.fromkeys([*old.value, *new.value])), new.source, new.level, new.spelling, True)
    if old.value == new.value:
        return new
    if old.spelling == new.spelling:
        report.notes.append(f'--{new.spelling} is given twice; the last value counts: {new.value}')
        return new
    report.mistakes.append(
        f'--{old.spelling} {_brief(old.value)} and --{new.spelling} {_brief(new.value)} are two spellings of {name} with different values; '
        'give one of them'
    )
    return new


def _brief(value: Any) -> str:
    return ' '.join(map(str, value)) if isinstance(value, list) else str(value)


def _typed(command: str, entry: Entry, report: Report, join: bool = False) -> list[tuple[str, Given]]:
    """The flags (today's names) that one entry sets."""
    flags = flags_of(CLASSES[command])
    if entry.name.lower() in MEDIA:  # as the environment spells them
        entry.name = entry.name.lower()
    if entry.name in flags:
        return _convert(entry, flags[entry.name], report, join)
    alias = ALIASES.get(entry.name)
    if alias and (not alias.commands or command in alias.commands):
        return _from_alias(command, entry, report)
    if entry.name in SETTLED:
        _settled(entry, report)
    elif entry.name in IDLE and 'training_args' in flags:
        report.soft.append(f'--{entry.spelling} has no effect: {IDLE[entry.name]}')
    elif entry.name in GONE:
        report.mistakes.append(f'--{entry.spelling} is no flag of this version: {GONE[entry.name]}')
    elif later.flag_reason(entry.name):
        if not later.asks_for_nothing(entry.name, entry.raw):
            report.later.setdefault(later.flag_reason(entry.name), []).append(f'--{entry.spelling}')
    elif 'training_args' in flags and (flag := passthrough(entry.name)):
        return [
            ('training_args', Given({entry.name: given.value}, given.source, given.level, given.spelling))
            for _, given in _convert(entry, flag, report, False)
        ]
    else:
        report.soft.append(_unknown(command, entry))
    return []


def _from_alias(command: str, entry: Entry, report: Report) -> list[tuple[str, Given]]:
    alias = ALIASES[entry.name]
    try:
        raw = alias.convert(entry.raw) if alias.convert else entry.raw
    except ValueError:
        report.mistakes.append(f'--{entry.spelling}: cannot read {_brief(entry.raw)!r}')
        return []
    report.notes.append(f'--{entry.spelling} ({alias.since}) is now --{alias.new}')
    if raw is Nothing:
        return []
    found = []
    for name, value in (
        raw if isinstance(raw, dict) and alias.convert and alias.new != 'max_memory' else {alias.new: raw}
    ).items():
        moved = Entry(name, value, entry.source, entry.level, entry.spelling)
        found += _typed(command, moved, report, alias.join)
    return found


def _convert(entry: Entry, flag: Flag, report: Report, join: bool) -> list[tuple[str, Given]]:
    try:
        raw = canonical(flag.name, entry.raw)
        _refuse_later(flag, raw)
        value = convert(flag, raw)
    except ValueError as error:
        report.failed.add(flag.name)
        where = 'environment variable ' if entry.level == ENVIRONMENT_LEVEL else '--'
        report.mistakes.append(f'{where}{entry.spelling} {error}')
        return []
    return [(flag.name, Given(value, entry.source, entry.level, entry.spelling, join))]


def _refuse_later(flag: Flag, raw: Any) -> None:
    for word in raw if isinstance(raw, (list, tuple)) else [raw]:
        if isinstance(word, str) and (reason := later.value_reason(flag.name, word)):
            raise ValueError(f'{word}: {reason}')


def _settled(entry: Entry, report: Report) -> None:
    allowed, why = SETTLED[entry.name]
    raw = list(entry.raw) if isinstance(entry.raw, Words) else [entry.raw]
    word = str(raw[0] if raw else 'true').lower()
    if len(raw) > 1 or word not in allowed:
        report.mistakes.append(f'--{entry.spelling} {_brief(raw)} is not possible: {why}')


def passthrough(name: str) -> Flag | None:
    """A field of transformers.TrainingArguments as a flag; None when there is no such field."""
    kind = later.read_facts('training_arguments.json')['fields'].get(name)
    if kind is None:
        return None
    return Flag(name, kind.rstrip('?'), None, dict, nullable=kind.endswith('?'))


def _unknown(command: str, entry: Entry) -> str:
    own = flags_of(CLASSES[command])
    target = ALIASES[entry.name].new if entry.name in ALIASES else entry.name
    others = [
        other for other in ('pt', 'sft', 'rlhf', 'infer', 'eval', 'sample', 'deploy', 'export', 'preview', 'verify') if target in flags_of(CLASSES[other])
    ]
    if others:
        return f'--{entry.spelling} is no flag of swift {command}; it belongs to swift {", ".join(others)}'
    words = [f'--{entry.spelling}', *(entry.raw if isinstance(entry.raw, Words) else [str(entry.raw)])]
    names = [*own, *(name for name, alias in ALIASES.items() if alias.new in own)]
    if 'training_args' in own:
        names += later.read_facts('training_arguments.json')['fields']
    near = did_you_mean(f'--{entry.spelling}', [f'--{name}' for name in names], cutoff=0.7)
    return f'--{entry.spelling}: unknown flag (remaining_argv: {words})' + (
        f'; {near}' if near else f'; see swift {command} --help'
    )
