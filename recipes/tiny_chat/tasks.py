"""The tasks tiny-chat learns. Each makes one `Example` from a random generator.

Whether a question is held out depends on a hash of `Example.key`. For sums and rows of items the key is the numbers or
items themselves, so a held-out question is never trained in any wording, language or order of the operands. Facts have
to be seen to be known: there the key holds the wording, and what is held out is the way of asking.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from facts import CITIES, NAMES, SMALL_TALK, TABLES, WORDS

HELD_OUT_PERCENT = 10


@dataclass(frozen=True)
class Example:
    """One question with its one right answer."""

    task: str
    key: str
    question: str
    answer: str
    text: str
    """The same knowledge as a plain sentence, for pre-training."""

    @property
    def held_out(self) -> bool:
        if self.task == 'small_talk':
            return False  # nothing to infer: a greeting is known or not
        if self.task in ('add', 'sub') and all(len(number) == 1 for number in self.key.split()):
            return False  # sums of single digits are the steps of every longer one
        digest = hashlib.sha256(f'{self.task} {self.key}'.encode()).digest()
        return int.from_bytes(digest[:4], 'big') % 100 < HELD_OUT_PERCENT


# ---- arithmetic ----
_ADD = ['{a} + {b} = ?', '{a} + {b} = ?', '{a} + {b}', '{a}+{b}=?', 'What is {a} + {b}?', 'What is {a} plus {b}?', 'Calculate {a} + {b}.', 'Add {a} and {b}.',
        '{a} 加 {b} 等于多少?', '计算 {a} + {b}。']
_SUB = ['{a} - {b} = ?', '{a} - {b} = ?', '{a} - {b}', '{a}-{b}=?', 'What is {a} - {b}?', 'What is {a} minus {b}?', 'Calculate {a} - {b}.', 'Take {b} from {a}.',
        '{a} 减 {b} 等于多少?', '计算 {a} - {b}。']
_MUL = ['{a} * {b} = ?', '{a} * {b} = ?', '{a} * {b}', '{a}*{b}=?', 'What is {a} * {b}?', 'What is {a} times {b}?', 'Calculate {a} * {b}.', 'Multiply {a} by {b}.',
        '{a} 乘 {b} 等于多少?', '计算 {a} * {b}。']


def _arithmetic(task: str, wordings: list[str], sign: str, a: int, b: int, value: int, rng: Random) -> Example:
    key = f'{min(a, b)} {max(a, b)}' if sign != '-' else f'{a} {b}'
    return Example(task, key, rng.choice(wordings).format(a=a, b=b), str(value), f'{a} {sign} {b} = {value}')


def add(rng: Random) -> Example:
    a, b = rng.randrange(100), rng.randrange(100)
    return _arithmetic('add', _ADD, '+', a, b, a + b, rng)


def add3(rng: Random) -> Example:
    a, b, c = (rng.randrange(10) for _ in range(3))
    key = ' '.join(map(str, sorted((a, b, c))))
    wording = rng.choice(['{x} = ?', 'What is {x}?', 'Calculate {x}.', '计算 {x}。'])
    total = f'{a} + {b} + {c}'
    return Example('add3', key, wording.format(x=total), str(a + b + c), f'{total} = {a + b + c}')


def sub(rng: Random) -> Example:
    a, b = sorted((rng.randrange(100), rng.randrange(100)), reverse=True)
    return _arithmetic('sub', _SUB, '-', a, b, a - b, rng)


def mul(rng: Random) -> Example:
    a, b = rng.randrange(2, 10), rng.randrange(2, 100)
    a, b = (a, b) if rng.random() < 0.5 else (b, a)
    return _arithmetic('mul', _MUL, '*', a, b, a * b, rng)


def add_big(rng: Random) -> Example:
    a, b = rng.randrange(100, 1000), rng.randrange(10, 1000)
    a, b = (a, b) if rng.random() < 0.5 else (b, a)
    return _arithmetic('add_big', _ADD, '+', a, b, a + b, rng)


def sub_big(rng: Random) -> Example:
    a = rng.randrange(100, 1000)
    b = rng.randrange(10, a)
    return _arithmetic('sub_big', _SUB, '-', a, b, a - b, rng)


# ---- rows of items ----
def _items(rng: Random, low: int, high: int) -> list[str]:
    count = rng.randint(low, high)
    kind = rng.randrange(4)
    if kind == 0:
        return [rng.choice('abcdefghijklmnopqrstuvwxyz') for _ in range(count)]
    if kind == 1:
        return [str(rng.randrange(100)) for _ in range(count)]
    if kind == 2:
        return [rng.choice(WORDS) for _ in range(count)]
    return [rng.choice(WORDS) if rng.random() < 0.5 else str(rng.randrange(10)) for _ in range(count)]


def _on_row(task: str, wordings: list[str], row: str, answer: str, rng: Random) -> Example:
    return Example(task, row, rng.choice(wordings).format(x=row), answer, f'{task}: {row} -> {answer}')


def copy(rng: Random) -> Example:
    row = ' '.join(_items(rng, 2, 6))
    return _on_row('copy', ['Repeat: {x}', 'Copy: {x}', 'Say this again: {x}', '重复: {x}'], row, row, rng)


def reverse(rng: Random) -> Example:
    items = _items(rng, 2, 5)
    return _on_row('reverse', ['Reverse: {x}', 'Write backwards: {x}', 'Reverse the order: {x}', '倒过来: {x}'],
                   ' '.join(items), ' '.join(items[::-1]), rng)


def sort(rng: Random) -> Example:
    if rng.random() < 0.5:
        items = [str(n) for n in rng.sample(range(100), rng.randint(2, 4))]
    else:
        items = rng.sample('abcdefghijklmnopqrstuvwxyz', rng.randint(2, 5))
    ordered = sorted(items, key=lambda item: (len(item), item))
    return _on_row('sort', ['Sort: {x}', 'Put in order: {x}', 'Sort from low to high: {x}', '排序: {x}'],
                   ' '.join(items), ' '.join(ordered), rng)


def count(rng: Random) -> Example:
    row = ' '.join(_items(rng, 1, 9))
    return _on_row('count', ['How many words: {x}', 'Count the words: {x}', 'Count: {x}', '数一数: {x}'],
                   row, str(len(row.split())), rng)


def count_letter(rng: Random) -> Example:
    letters = rng.sample('abcdefgh', 3)
    row = [rng.choice(letters) for _ in range(rng.randint(3, 8))]
    ask = rng.choice(letters)
    question = rng.choice(['How many {l} in: {x}', 'Count the {l} in: {x}']).format(l=ask, x=' '.join(row))
    answer = str(row.count(ask))
    return Example('count_letter', f'{ask} {" ".join(row)}', question, answer, f'count {ask}: {" ".join(row)} -> {answer}')


def largest(rng: Random) -> Example:
    numbers = rng.sample(range(100), rng.randint(2, 4))
    row, big = ' '.join(map(str, numbers)), rng.random() < 0.5
    wordings = ['Which is the largest: {x}', 'Largest of: {x}'] if big else ['Which is the smallest: {x}', 'Smallest of: {x}']
    answer = str(max(numbers) if big else min(numbers))
    name = 'largest' if big else 'smallest'
    return Example('largest', f'{name} {row}', rng.choice(wordings).format(x=row), answer, f'{name}: {row} -> {answer}')


def pick(rng: Random) -> Example:
    items = _items(rng, 2, 6)
    row, first = ' '.join(items), rng.random() < 0.5
    name, answer = ('first', items[0]) if first else ('last', items[-1])
    question = rng.choice([f'{name.title()} word of: {row}', f'What is the {name} word: {row}'])
    return Example('pick', f'{name} {row}', question, answer, f'{name}: {row} -> {answer}')


def following(rng: Random) -> Example:
    if rng.random() < 0.6:
        n = rng.randrange(200)
        before, after = str(n), str(n + 1)
    else:
        letter = rng.randrange(25)
        before, after = chr(97 + letter), chr(98 + letter)
    question = rng.choice([f'What comes after {before}?', f'Next after {before}?', f'Which one follows {before}?'])
    return Example('following', f'{before} {question.split()[0]}', question, after, f'After {before} comes {after}.')


def compare(rng: Random) -> Example:
    a, b = rng.sample(range(100), 2)
    question = rng.choice([f'Is {a} greater than {b}?', f'Is {a} more than {b}?', f'{a} 大于 {b} 吗?'])
    chinese = '吗' in question
    answer = ('是' if chinese else 'yes') if a > b else ('否' if chinese else 'no')
    return Example('compare', f'{a} {b}', question, answer, f'{a} {">" if a > b else "<"} {b}')


def parity(rng: Random) -> Example:
    n = rng.randrange(1000)
    answer = 'odd' if n % 2 else 'even'
    return Example('parity', str(n), rng.choice([f'Is {n} even or odd?', f'Even or odd: {n}']), answer, f'{n} is {answer}.')


# ---- knowledge and talk ----
def fact(rng: Random) -> Example:
    """A fact is known from training; its held-out question asks for it in a wording not seen for this fact."""
    name = rng.choice(list(TABLES))
    table, wordings, sentence = TABLES[name]
    asked = rng.choice(list(table))
    wording = rng.choice(wordings)
    return Example('fact', f'{name} {asked} {wording}', wording.format(q=asked), table[asked], sentence.format(q=asked, a=table[asked]))


def small_talk(rng: Random) -> Example:
    wordings, answer = rng.choice(SMALL_TALK)
    question = rng.choice(wordings)
    return Example('small_talk', question, question, answer, f'{question} {answer}')


ARITHMETIC = ('add', 'sub', 'mul', 'add3', 'add_big', 'sub_big')
# task → (generator, share of the training rows)
TASKS: dict[str, tuple[Callable[[Random], Example], float]] = {
    'add': (add, 0.19), 'sub': (sub, 0.14), 'mul': (mul, 0.10), 'add3': (add3, 0.04),
    'add_big': (add_big, 0.06), 'sub_big': (sub_big, 0.05), 'copy': (copy, 0.04), 'reverse': (reverse, 0.06),
    'sort': (sort, 0.05), 'count': (count, 0.03), 'count_letter': (count_letter, 0.03), 'largest': (largest, 0.03),
    'pick': (pick, 0.02), 'following': (following, 0.02), 'compare': (compare, 0.02), 'parity': (parity, 0.01),
    'fact': (fact, 0.09), 'small_talk': (small_talk, 0.02),
}  # fmt: skip


def draw(rng: Random, held_out: bool = False, task: str | None = None) -> Example:
    """A random example of the training questions (or of the held-out ones), of one task or of any."""
    while True:
        name = task or rng.choices(list(TASKS), [share for _, share in TASKS.values()])[0]
        example = TASKS[name][0](rng)
        if example.held_out == held_out:
            return example


# ---- conversations ----
def single(rng: Random) -> dict:
    example = draw(rng)
    return {'messages': _turn(example.question, example.answer)}


def multi_turn(rng: Random) -> dict:
    """Two or three unrelated questions, or a name that has to be remembered."""
    if rng.random() < 0.25:
        name, between = rng.choice(NAMES), draw(rng)
        messages = _turn(rng.choice([f'My name is {name}.', f'I am {name}.', f'Hello, I am {name}.']), f'Hello, {name}!')
        if rng.random() < 0.5:
            messages += _turn(between.question, between.answer)
        return {'messages': messages + _turn(rng.choice(['What is my name?', 'Who am I?']), f'You are {name}.')}
    examples = [draw(rng) for _ in range(rng.randint(2, 3))]
    return {'messages': [message for e in examples for message in _turn(e.question, e.answer)]}


def with_system(rng: Random) -> dict:
    """A system prompt that is neutral, gives a name, or changes how the answer is written."""
    example, kind = draw(rng), rng.randrange(4)
    if kind == 0:
        system, turn = rng.choice(['You are a helpful assistant.', 'Answer briefly.', '你是一个有用的助手。']), None
    elif kind == 1:
        name = rng.choice(NAMES)
        system = rng.choice([f'You are {name}.', f'Your name is {name}.'])
        turn = _turn(rng.choice(['Who are you?', 'What is your name?']), f'I am {name}.')
    elif kind == 2:
        system, turn = 'Answer in capital letters.', _turn(example.question, example.answer.upper())
    else:
        system, turn = 'End every answer with a period.', _turn(example.question, example.answer.rstrip('.。') + '.')
    return {'messages': [{'role': 'system', 'content': system}, *(turn or _turn(example.question, example.answer))]}


def thinking(rng: Random, asked: bool = True) -> dict:
    """A sum worked out digit by digit before the answer, because the question wants it or just so."""
    example = draw(rng, task=rng.choice(['add', 'sub', 'add_big', 'sub_big']))
    first, sign, second = example.text.split(' = ')[0].split()
    question = rng.choice([f'Think first: {first} {sign} {second} = ?', f'Think step by step: {first} {sign} {second} = ?'])
    if not asked:
        question = example.question
    answer = {'role': 'assistant', 'reasoning_content': _by_hand(int(first), sign, int(second)), 'content': example.answer}
    return {'messages': [{'role': 'user', 'content': question}, answer]}


def _by_hand(a: int, sign: str, b: int) -> str:
    steps, carry, digits = [], 0, []
    for place in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**place % 10, b // 10**place % 10
        value = x + y + carry if sign == '+' else x - y - carry
        term = f'{x} {sign} {y}' + (f' {sign} 1' if carry else '')
        carry = int(value > 9 if sign == '+' else value < 0)
        digits.append(value % 10)
        steps.append(f'{term} = {value}, write {value % 10}')
    if carry:
        digits.append(1)
    number = int(''.join(map(str, reversed(digits))))
    return '\n'.join([*steps, f'{a} {sign} {b} = {number}'])


def _tool(name: str, description: str, argument: str, meaning: str) -> dict:
    parameters = {'type': 'object', 'properties': {argument: {'type': 'string', 'description': meaning}}, 'required': [argument]}
    return {'type': 'function', 'function': {'name': name, 'description': description, 'parameters': parameters}}


WEATHER = _tool('get_weather', 'Weather of a city.', 'city', 'Name of the city')
TIME = _tool('get_time', 'Local time of a city.', 'city', 'Name of the city')
CALCULATOR = _tool('calculate', 'Value of an expression.', 'expression', 'For example 12 * 34')


def tool_use(rng: Random) -> dict:
    """One call and its answer; now and then a question that needs no tool."""
    tools = rng.sample([WEATHER, TIME, CALCULATOR], rng.randint(1, 3))
    kind = rng.choice([tool['function']['name'] for tool in tools])
    if rng.random() < 0.2:
        example = draw(rng, task=rng.choice(['fact', 'small_talk', 'copy']))
        return {'tools': tools, 'messages': _turn(example.question, example.answer)}
    city = rng.choice(CITIES)
    if kind == 'get_weather':
        sky, degrees = rng.choice(['sunny', 'rainy', 'cloudy', 'windy']), rng.randrange(40)
        question = rng.choice([f'What is the weather in {city}?', f'How is the weather in {city}?', f'Weather in {city}?'])
        arguments, result = {'city': city}, {'sky': sky, 'degrees': degrees}
        answer = f'It is {sky} in {city}, {degrees} degrees.'
    elif kind == 'get_time':
        now = f'{rng.randrange(24)}:{rng.randrange(60):02d}'
        question = rng.choice([f'What time is it in {city}?', f'Tell me the time in {city}.', f'Time in {city}?'])
        arguments, result, answer = {'city': city}, {'time': now}, f'It is {now} in {city}.'
    else:
        a, b = rng.randrange(100, 1000), rng.randrange(100, 1000)
        question = rng.choice([f'Use the calculator: {a} * {b}', f'Calculate with the tool: {a} * {b}'])
        arguments, result, answer = {'expression': f'{a} * {b}'}, {'value': a * b}, str(a * b)
    call = {'type': 'function', 'function': {'name': kind, 'arguments': arguments}}
    messages = [
        {'role': 'user', 'content': question},
        {'role': 'assistant', 'content': '', 'tool_calls': [call]},
        {'role': 'tool', 'content': json.dumps(result)},
        {'role': 'assistant', 'content': answer},
    ]
    return {'tools': tools, 'messages': messages}


def _turn(question: str, answer: str) -> list[dict]:
    return [{'role': 'user', 'content': question}, {'role': 'assistant', 'content': answer}]


# kind of conversation → (generator, share of the rows)
CONVERSATIONS: dict[str, tuple[Callable[[Random], dict], float]] = {
    'single': (single, 0.83), 'multi_turn': (multi_turn, 0.05), 'with_system': (with_system, 0.05),
    'thinking': (thinking, 0.05), 'tool_use': (tool_use, 0.02),
}  # fmt: skip


def conversation(rng: Random) -> dict:
    """One training row: `messages`, and `tools` where there are some."""
    kind = rng.choices(list(CONVERSATIONS), [share for _, share in CONVERSATIONS.values()])[0]
    return CONVERSATIONS[kind][0](rng)


def last_rows(rng: Random) -> dict:
    """A row of the short last stage: mostly as before, and now and then a sum worked out unasked.

    So rare, such rows don't make the model think by itself, but it knows how to go on when its answer is begun with <think>.
    """
    return thinking(rng, asked=False) if rng.random() < 0.05 else conversation(rng)


def repetition(rng: Random) -> str:
    """A few rows of items, each written three times: from these a model soon learns to look back and copy."""
    rows = [draw(rng, task='copy').answer for _ in range(4)]
    return '\n'.join(row for row in rows for _ in range(3))


def document(rng: Random, lines: int = 10) -> str:
    """Plain text of about a hundred tokens: repeated rows, or sentences about training questions."""
    if rng.random() < 0.4:
        return repetition(rng)
    return '\n'.join(draw(rng).text for _ in range(lines))
