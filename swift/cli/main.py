"""`swift COMMAND …`: find the command, settle its arguments, start processes if asked, run its pipeline, report failures.

swift sft --model tiny --dataset data.jsonl
python -m swift sft …            the same
torchrun … swift/cli/sft.py …    the same in several processes
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from swift.core.errors import ArgumentsError, SwiftError, did_you_mean
from swift.core.log import debug_enabled

COMMANDS: dict[str, tuple[str, str]] = {
    'pt': ('swift.pipelines.train:pretrain_main', 'Pre-train a model on plain text.'),
    'sft': ('swift.pipelines.train:sft_main', 'Fine-tune a model on conversations (LoRA or full).'),
    'rlhf': ('swift.pipelines.rlhf:rlhf_main', 'Train on preferences: dpo, kto, orpo, cpo, simpo, rm.'),
    'infer': ('swift.pipelines.infer:infer_main', 'Ask a model, in the terminal or for a whole file.'),
    'eval': ('swift.pipelines.eval:eval_main', 'Measure a model on questions with known answers.'),
    'sample': ('swift.pipelines.sample:sample_main', 'Draw many answers and keep the best, as data to train on.'),
    'deploy': ('swift.pipelines.deploy:deploy_main', 'Serve a model over HTTP, as OpenAI does.'),
    'app': ('swift.ui.app:app_main', 'Chat with a model in the browser.'),
    'merge-lora': ('swift.pipelines.export:merge_lora_main', 'Merge an adapter into its model.'),
    'export': ('swift.pipelines.export:export_main', 'Write a trained model in the form another program wants.'),
    'plan': (
        'swift.pipelines.plan:plan_main',
        'Show what a training command would do: rows, steps, parameters, memory.',
    ),
    'preview': ('swift.pipelines.preview:preview_main', 'Show samples with the tokens that are trained marked.'),
    'verify': ('swift.pipelines.verify:verify_main', 'Check a checkpoint: complete, merged = adapter, packed = alone.'),
    'doctor': ('swift.pipelines.doctor:doctor_main', 'Show devices, versions, and what is missing for what.'),
}
"""Command → the function that runs it and one line of help."""

OTHER_NAMES = {'train': 'sft', 'merge_lora': 'merge-lora'}
"""Other words for a command."""

METHODS = ('dpo', 'kto', 'orpo', 'cpo', 'simpo', 'rm')
"""Methods of swift rlhf that can stand as the command: `swift dpo` is `swift rlhf --rlhf_type dpo`."""

ROUTE_MAPPING = {name: f'swift.cli.{name.replace("-", "_")}' for name in COMMANDS}
"""Command → the module that runs it as a script file."""

LAUNCHED = ('pt', 'sft', 'rlhf')
"""Commands that become several processes when NPROC_PER_NODE or NNODES says so."""

FAILED, MISUSED, INTERRUPTED = 1, 2, 130

GRACE = 2.0
"""Seconds that a rank other than the first waits before it tells a mistake: the launcher ends it sooner if the first failed too."""


def cli_main(argv: Sequence[str] | None = None) -> int:
    """The console script `swift`. Returns the exit code: 0, 1 (a failure), 2 (a mistake of the user's), 130 (interrupted)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ('-h', '--help', 'help'):
        from swift.cli.help import overview

        print(overview(), file=sys.stdout if words else sys.stderr)
        return 0 if words else MISUSED
    if words[0] in ('--version', '-V', 'version'):
        import swift

        print(f'swift {swift.__version__}')
        return 0
    if words[0] in METHODS:
        words = ['rlhf', '--rlhf_type', *words]
        if not any(word in ('-h', '--help') for word in words):
            print(f'swift {words[2]} is short for swift rlhf --rlhf_type {words[2]}', file=sys.stderr)
    command = OTHER_NAMES.get(words[0], words[0])
    if command not in COMMANDS:
        print(f'swift: error: {_unknown(words[0])}', file=sys.stderr)
        return MISUSED
    return run_command(command, words[1:])


def run_command(command: str, argv: Sequence[str] | None = None) -> int:
    """Run one command with its words (None: those of this process) and return the exit code. Every failure ends here."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if any(word in ('-h', '--help') for word in words):
            from swift.cli.help import command_help

            print(command_help(command))
        else:
            _run(command, words)
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        sys.stdout = open(os.devnull, 'w')
        return 0
    except KeyboardInterrupt:
        print(f'swift {command}: interrupted', file=sys.stderr)
        return INTERRUPTED
    except SwiftError as error:
        _complain(command, error)
        return MISUSED
    except Exception as error:
        _report(command, error)
        return FAILED
    return 0


def _run(command: str, words: list[str]) -> Any:
    from swift.arguments.commands import CLASSES

    if command not in CLASSES:
        return load(command)(words)
    from swift.arguments import parse_args

    if command not in LAUNCHED:
        args = parse_args(command, words)  # before the pipeline is imported, which takes seconds
        return load(command)(args)
    from swift.parallel.launch import exec_torchrun, launch_settings, should_launch

    _, flags = launch_settings(words, os.environ)
    launch = should_launch(os.environ, words)
    args = parse_args(command, flags, quiet=launch)  # mistakes are told once, before processes start
    if launch and not args.dry_run:
        return exec_torchrun(command, words)
    return load(command)(args)


def load(command: str) -> Callable[[Any], Any]:
    """The function that runs a command."""
    module, _, name = COMMANDS[command][0].partition(':')
    return getattr(import_module(module), name)


def _unknown(word: str) -> str:
    from swift.arguments.later import command_reason

    if reason := command_reason(word.replace('_', '-')):
        return f'{word}: {reason}'
    near = did_you_mean(word, [*COMMANDS, *OTHER_NAMES, *METHODS], cutoff=0.5)
    return f'unknown command {word!r}; {near or "known: " + ", ".join(COMMANDS)}'


def _complain(command: str, error: SwiftError) -> None:
    """One line for each mistake. The ranks of one job mostly make the same one: the first tells, and ends the others."""
    from swift.core.dist import is_master, rank

    if not is_master():
        if isinstance(error, ArgumentsError):
            return
        time.sleep(GRACE)
    _traceback()
    where = '' if is_master() else f' (rank {rank()})'
    lines = error.mistakes if isinstance(error, ArgumentsError) else [' '.join(str(error).split('\n'))]
    for line in lines:
        print(f'swift {command}: error: {line}{where}', file=sys.stderr)


def _report(command: str, error: Exception) -> None:
    _traceback()
    text = ' '.join(str(error).split())
    text = text if len(text) <= 600 else text[:600] + ' …'
    hint = '' if debug_enabled() else ' (SWIFT_DEBUG=1 shows the traceback)'
    print(f'swift {command}: failed: {type(error).__name__}: {text}{hint}', file=sys.stderr)


def _traceback() -> None:
    if debug_enabled():
        import traceback

        traceback.print_exc()


if __name__ == '__main__':
    raise SystemExit(cli_main())
