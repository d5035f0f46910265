"""The failures a user can cause, named after the boundary they crossed.

    SwiftError                   a mistake of the user's; exit code 2, one line, no traceback
    ├── ArgumentsError           every mistake found in the arguments, reported together
    ├── RowError                 one data row that can't be used (file, line, reason)
    │   └── RowTooLong           a good row that is longer than max_length
    ├── DatasetError             a data set that can't be found, read or trusted
    ├── ModelError               a model that can't be found or loaded as asked
    ├── TemplateError            a conversation that the chat template refuses
    ├── CheckpointError          a checkpoint that is missing, incomplete or does not fit
    └── MissingDependencyError   an optional package is needed and not installed
"""

from __future__ import annotations

from collections.abc import Iterable


class SwiftError(ValueError):
    """A mistake the user can mend. `str(error)` is one line; `hint` names the remedy."""

    def __init__(self, message: str, hint: str | None = None):
        self.message = message
        self.hint = hint
        super().__init__(f'{message} {hint}' if hint else message)


class ArgumentsError(SwiftError):
    """All mistakes of one command line. `mistakes` holds one line for each."""

    def __init__(self, mistakes: Iterable[str]):
        self.mistakes = list(mistakes)
        super().__init__('\n'.join(self.mistakes))


class RowError(SwiftError):
    """One data row is unusable. `source` is `file:line` (or `dataset[index]`), None when not known yet."""

    def __init__(self, reason: str, source: str | None = None, hint: str | None = None):
        self.reason = reason
        self.source = source
        super().__init__(f'{source}: {reason}' if source else reason, hint)

    def at(self, source: str | None) -> RowError:
        """The same mistake with its place; an already known place is kept."""
        return self if self.source or not source else type(self)(self.reason, source, self.hint)

    def __reduce__(self):  # crosses process borders when rows are encoded in parallel
        return type(self), (self.reason, self.source, self.hint)


class RowTooLong(RowError):
    """A row that is longer than max_length and is left out because truncation_strategy is delete: not a bad row."""


class DatasetError(SwiftError):
    """A data set can't be found, read or trusted."""


class ModelError(SwiftError):
    """A model can't be found or loaded as asked."""


class TemplateError(SwiftError):
    """A chat template is missing, broken, or refuses a conversation."""


class CheckpointError(SwiftError):
    """A checkpoint is missing, incomplete, or does not fit what is asked."""


class MissingDependencyError(SwiftError):
    """An optional package is needed. `extra` is the name to install."""

    def __init__(self, package: str, purpose: str, extra: str | None = None):
        install = f"'swift-finetune[{extra}]'" if extra else package
        super().__init__(f'{purpose} needs the package {package}, which is not installed;', f'run: pip install {install}')


def did_you_mean(name: str, possibilities: Iterable[str], *, n: int = 1, cutoff: float = 0.6) -> str:
    """A sentence such as `did you mean 'learning_rate'?`, or '' when nothing is near."""
    import difflib

    close = difflib.get_close_matches(name, list(possibilities), n=n, cutoff=cutoff)
    return f"did you mean {' or '.join(repr(c) for c in close)}?" if close else ''
