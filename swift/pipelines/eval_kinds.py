"""Kinds of evaluation: what a row asks, what the right answer is, and by what answers are judged unless told otherwise.

A plugin adds one: `eval_kinds['mine'] = Mine`, a subclass of Kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from swift.core.errors import RowError
from swift.core.registry import Registry
from swift.core.types import Conversation

LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'
_QUESTION = ('question', 'query', 'problem', 'instruction', 'prompt', 'input', 'ctx', 'sentence')
_ANSWER = ('answer', 'answerKey', 'answer_key', 'target', 'label', 'gold', 'correct', 'solution', 'output', 'response')
_CHOICES = ('choices', 'options', 'endings')
_CJK = re.compile(r'[\u3400-\u9fff]')


@dataclass
class Item:
    """One question. `talk` ends where the model is to speak."""

    talk: Conversation
    reference: str | None
    """The right answer. None: the row has none, and it is asked but not judged."""
    said: str = ''
    """How an example shows the right answer."""
    choices: list[str] = field(default_factory=list)
    group: str | None = None
    """Subject, task or level, for figures of each."""


class Kind:
    """How rows of one kind are asked and judged. `metrics`: by what, unless --eval_metrics says otherwise; the first is the main one."""

    metrics: tuple[str, ...] = ('accuracy',)
    prompt = ''
    """Put around the question: a text with {question} (and {choices}); '': the question alone."""

    def read(self, talk: Conversation, prompt: str | None = None) -> Item:
        """The question of a conversation whose last message, if it is the assistant's, is the answer. Raises RowError."""
        from swift.pipelines.infer import question_of

        asked, answer = question_of(talk)
        reference = talk.columns.get('solution', answer)
        if reference is None:
            reference = talk.label
        shape = self.prompt if prompt is None else prompt
        if shape:
            asked.messages[-1] = {**asked.messages[-1], 'content': _around(shape, asked.messages[-1].get('content'))}
        return Item(asked, None if reference is None else str(reference), answer or str(reference or ''))

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row in a shape that the data room knows."""
        return dict(row)

    def judge(self, response: str, item: Item) -> str:
        """What of a response is compared with the reference."""
        return response


class QA(Kind):
    """Question and answer, compared as written and as it counts."""

    metrics = ('accuracy', 'exact')


class Math(Kind):
    """Question and a worked answer, as GSM8K has it: the number behind #### counts."""

    metrics = ('accuracy',)


class Generation(Kind):
    """A text that is compared with a text."""

    metrics = ('rouge',)


class Choice(Kind):
    """Multiple choice: the letter counts."""

    metrics = ('choice',)
    prompt = '{question}\n\n{choices}\n\nAnswer with the letter of the right choice only.'
    chinese = '{question}\n\n{choices}\n\n只回答正确选项的字母。'

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row with the question alone as user message; choices and the number of the right one beside it."""
        question = next((row[name] for name in _QUESTION if row.get(name) is not None), None)
        if question is None and row.get('messages'):
            question = next((m.get('content') for m in reversed(row['messages']) if m.get('role') == 'user'), None)
        if not isinstance(question, str) or not question:
            raise RowError(f'a multiple-choice row needs a question; its columns: {", ".join(row)}')
        choices = choices_of(row)
        right = right_choice(row, choices)
        used = {*_QUESTION, *_ANSWER, *_CHOICES, *LETTERS, 'messages'}
        made = {key: value for key, value in row.items() if key not in used}
        return {**made, 'messages': [{'role': 'user', 'content': question}], 'choices': choices, 'right': right}

    def read(self, talk: Conversation, prompt: str | None = None) -> Item:
        choices, right = talk.columns['choices'], talk.columns['right']
        content = talk.messages[-1].get('content')
        text = content if isinstance(content, str) else ' '.join(part.get('text') or '' for part in content if isinstance(part, dict))
        shape = prompt if prompt is not None else self.chinese if _CJK.search(text) else self.prompt
        listed = '\n'.join(f'{letter}. {choice}' for letter, choice in zip(LETTERS, choices, strict=False))
        talk.messages[-1] = {**talk.messages[-1], 'content': _around(shape, content, listed)}
        letter = None if right is None else LETTERS[right]
        return Item(talk, letter, letter or '', list(choices))

    def judge(self, response: str, item: Item) -> str:
        return chosen_letter(response, item.choices) or ''


class ChoiceText(Choice):
    """Multiple choice by likelihood: the question alone is asked, and each choice is a possible answer to it."""

    prompt = chinese = '{question}'

    def read(self, talk: Conversation, prompt: str | None = None) -> Item:
        item = super().read(talk, prompt)
        return replace(item, said='' if item.reference is None else item.choices[LETTERS.index(item.reference)])


eval_kinds: Registry = Registry('evaluation kind', {'choice': Choice, 'qa': QA, 'math': Math, 'generation': Generation})
"""Name → Kind."""

KNOWN = {
    **dict.fromkeys('mmlu ceval c-eval cmmlu arc arc_easy arc_challenge hellaswag cmb gpqa general_mcq mcq multiple_choice agieval race'.split(), 'choice'),
    **dict.fromkeys('gsm8k cmath mgsm aime24 aime25 math_500 competition_math'.split(), 'math'),
    **dict.fromkeys('general_qa triviaqa nq trivia_qa squad'.split(), 'qa'),
    **dict.fromkeys('rouge xsum cnn_dailymail summary translation'.split(), 'generation'),
    **dict.fromkeys('humaneval mbpp live_code_bench ifeval bfcl swe_bench'.split(), None),
}
"""Name of a benchmark → the kind that its rows are asked as; None: swift does not run what it takes."""


def kind_of(row: Mapping[str, Any]) -> str:
    """The kind of a set by its first row."""
    if any(row.get(name) is not None for name in _CHOICES) or all(row.get(letter) is not None for letter in 'AB'):
        return 'choice'
    answer = next((row[name] for name in _ANSWER if isinstance(row.get(name), str)), '')
    return 'math' if re.search(r'^####', answer, re.M) else 'qa'


def choices_of(row: Mapping[str, Any]) -> list[str]:
    """The texts of the choices: a list, {"A": …}, {"text": […], "label": […]}, or columns A, B, …  Raises RowError."""
    given = next((row[name] for name in _CHOICES if row.get(name) is not None), None)
    if given is None:
        given = {letter: row[letter] for letter in LETTERS if row.get(letter) is not None}
    if isinstance(given, Mapping) and isinstance(given.get('text'), Sequence) and not isinstance(given['text'], str):
        given = given['text']
    if isinstance(given, Mapping):
        given = [given[key] for key in sorted(given)]
    if not isinstance(given, Sequence) or isinstance(given, str) or not 2 <= len(given) <= len(LETTERS):
        raise RowError(f'choices must be a list of 2 to {len(LETTERS)} texts, or columns A, B, …')
    texts = [str(choice) for choice in given]
    stripped = [re.sub(rf'^\s*\(?{letter}[.):：、]\s*', '', text) for letter, text in zip(LETTERS, texts, strict=False)]
    written = all(text != bare for text, bare in zip(texts, stripped, strict=True))
    return stripped if written else texts  # the letters are there already


def right_choice(row: Mapping[str, Any], choices: Sequence[str]) -> int | None:
    """The number of the right choice: given as its letter, its text, or its number from 0. None: not given. Raises RowError."""
    answer = next((row[name] for name in _ANSWER if row.get(name) is not None and row[name] != ''), None)
    if answer is None:
        return None
    if isinstance(answer, int) and not isinstance(answer, bool):
        found = answer if 0 <= answer < len(choices) else None
    else:
        text = str(answer).strip()
        labels = row.get('choices', {}).get('label') if isinstance(row.get('choices'), Mapping) else None
        found = None
        if text in choices:
            found = list(choices).index(text)
        elif labels and text in labels:
            found = list(labels).index(text)
        elif letter := re.fullmatch(r'\(?([A-Za-z])[.)]?', text):
            found = LETTERS.index(letter[1].upper())
        elif text.isdigit():
            found = int(text)
    if found is None or found >= len(choices):
        raise RowError(f'the answer {answer!r} is none of the {len(choices)} choices')
    return found


_MARKED = re.compile(r'(?:answer(?: is|:| =)|答案(?:是|为|：|:)|选择?|choose|choice(?: is|:)|option)\s*[:：]?\s*[("\'*（【\[{$\\]*(?:boxed\{|text\{)?\s*([A-Z])(?![A-Za-z])', re.I)
_FIRST = re.compile(r'\s*[("\'*（【\[]*\s*([A-Za-z])\s*(?:[).,:：、。*"\'）】\]]|\s|$)')
_ALONE = re.compile(r"(?<![A-Za-z'])([A-Z])(?![A-Za-z'])")


def chosen_letter(response: str, choices: Sequence[str]) -> str | None:
    """The choice that a response makes. None: it makes none, or several.

    A letter that is all it says, the last one behind “the answer is” (答案是) or in a box, one at the beginning, a single letter
    anywhere, or the only choice whose text it repeats.
    """
    from swift.rewards.answers import final_answer, normalised

    letters = LETTERS[: len(choices)]
    said = re.sub(r'<think>.*?</think>', '', response, flags=re.S).strip()
    answer, marked = final_answer(said)
    for text in ([answer] if marked else []) + [said]:
        if (bare := text.strip(' .()*"\'（）。$')) and len(bare) == 1 and bare.upper() in letters:
            return bare.upper()
    if found := [letter.upper() for letter in _MARKED.findall(said) if letter.upper() in letters]:
        return found[-1]
    for text in ([answer] if marked else []) + [said]:
        first = _FIRST.match(text)
        if first and first[1] in letters and not re.match(r'\s*(?:A|I) [a-z]', text):
            return first[1]
    texts = [normalised(choice) for choice in choices]
    spoken = normalised(answer if marked else said)
    exact = [letter for letter, text in zip(letters, texts, strict=True) if text and text == spoken]
    if len(exact) == 1:
        return exact[0]
    alone = {letter for letter in _ALONE.findall(said) if letter in letters} - {'A', 'I'}
    if len(alone) == 1:
        return alone.pop()
    within = [letter for letter, text in zip(letters, texts, strict=True) if text and re.search(rf'(?<!\w){re.escape(text)}(?!\w)', spoken)]
    return within[0] if len(within) == 1 else None


def _around(shape: str, content: Any, choices: str = '') -> Any:
    """A prompt around a question: of a question in parts the text before it and after it."""
    if isinstance(content, str) or content is None:
        return shape.replace('{choices}', choices).replace('{question}', content or '')
    before, _, after = shape.replace('{choices}', choices).partition('{question}')
    return [part for part in ({'type': 'text', 'text': before}, *content, {'type': 'text', 'text': after}) if part.get('type') != 'text' or part.get('text')]
