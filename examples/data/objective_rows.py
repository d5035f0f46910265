"""Rows for every objective, from the tasks the built-in model knows. `make_data.py` writes them."""

from random import Random

import tasks
from facts import CHINESE, CITIES, NAMES, WORDS

SUMS = ('add', 'sub', 'add', 'sub', 'mul', 'add_big')
KINDS = {
    'add': 'addition', 'add3': 'addition', 'add_big': 'addition', 'sub': 'subtraction', 'sub_big': 'subtraction', 'mul': 'multiplication',
    'sort': 'ordering', 'reverse': 'ordering', 'count': 'counting', 'count_letter': 'counting', 'fact': 'knowledge', 'small_talk': 'talk',
}  # fmt: skip
"""Task → class of classification.jsonl."""


def different(make, number):
    """`number` rows of `make()`, no first column twice."""
    rows, seen = [], set()
    while len(rows) < number:
        row = make()
        key = str(next(iter(row.values())))
        if key not in seen:
            seen.add(key)
            rows.append(row)
    return rows


def wrong(answer, rng):
    """A number near the right one, or with two of its digits swapped."""
    digits = list(answer)
    if len(digits) > 2 and rng.random() < 0.3:
        place = rng.randrange(len(digits) - 1)
        digits[place], digits[place + 1] = digits[place + 1], digits[place]
        if (swapped := ''.join(digits)) != answer and digits[0] != '0':
            return swapped
    return str(max(0, int(answer) + rng.choice([-20, -10, -3, -2, -1, 1, 2, 3, 10, 20])))


def sum_of(rng, held_out):
    while True:
        example = tasks.draw(rng, held_out=held_out, task=rng.choice(SUMS))
        bad = wrong(example.answer, rng)
        if bad != example.answer:
            return example, bad


def preference(rng, held_out, number):
    """The right result of a sum rather than a wrong one."""

    def make():
        example, bad = sum_of(rng, held_out)
        return {'prompt': example.question, 'chosen': example.answer, 'rejected': bad}

    return different(make, number)


def shorter(rng, held_out, number):
    """The bare answer rather than a sentence around it, whether the answer is right or not."""
    around = ['The answer is {a}.', 'It is {a}, I think.', 'Let me see. That must be {a}.', 'I would say {a}, but ask again.']

    def make():
        example, bad = sum_of(rng, held_out)
        answers = [example.answer, bad] if rng.random() < 0.5 else [bad, example.answer]
        return {'prompt': example.question, 'chosen': answers[0], 'rejected': rng.choice(around).format(a=answers[1])}

    return different(make, number)


def kto(rng, number):
    """Answers on their own, each marked as wanted or not."""

    def make():
        example, bad = sum_of(rng, False)
        good = rng.random() < 0.5
        return {**_ask(example.question, example.answer if good else bad), 'label': good}

    return different(make, number)


def _ask(question, answer):
    return {'messages': [{'role': 'user', 'content': question}, {'role': 'assistant', 'content': answer}]}


FOUND = ('add', 'sub', 'add_big', 'sub_big', 'mul')


def near(example, rng):
    """A sentence about a sum that differs in one operand, with its own right result."""
    first, sign, second = example.text.split(' = ')[0].split()
    a, b = x, y = int(first), int(second)
    while (x, y) in ((a, b), (b, a)) or (sign == '-' and x < y):
        change = rng.choice([-30, -10, -2, -1, 1, 2, 10, 30])
        x, y = (max(0, a + change), b) if rng.random() < 0.5 else (a, max(0, b + change))
    value = {'+': x + y, '-': x - y, '*': x * y}[sign]
    return f'{x} {sign} {y} = {value}'


def search(rng, held_out, number, negatives, names):
    """A question, the sentence that answers it, and sentences that answer a question like it. `names`: the three columns."""
    texts = set()

    def make():
        while True:
            example = tasks.draw(rng, held_out=held_out, task=rng.choice(FOUND))
            if example.text not in texts:
                break
        texts.add(example.text)
        others = []
        while len(others) < negatives:
            if (text := near(example, rng)) != example.text and text not in others:
                others.append(text)
        return dict(zip(names, (example.question, example.text, others), strict=True))

    return different(make, number)


def similarity(rng, number):
    """Two rows of words and the share of words that both have."""

    def make():
        first = rng.sample(WORDS, 6)
        shared = rng.randint(0, 6)
        second = rng.sample(first, shared) + rng.sample([word for word in WORDS if word not in first], 6 - shared)
        rng.shuffle(second)
        return {'sentence1': ' '.join(first), 'sentence2': ' '.join(second), 'score': round(shared / 6, 2)}

    return different(make, number)


def classification(rng, held_out, number):
    """A question and what kind it is."""
    names = [name for name in KINDS if not (held_out and name == 'small_talk')]

    def make():
        example = tasks.draw(rng, held_out=held_out, task=rng.choice(names))
        return {'text': example.question, 'label': KINDS[example.task]}

    return different(make, number) if held_out else [make() for _ in range(number)]


SENTENCES = [
    'My name is {name} and I live in {city} .', '{name} went to {city} .', 'Yesterday {name} met {name} .', 'It is {number} degrees in {city} .',
    '{name} has {number} cats and {number} dogs .', 'From {city} to {city} it takes {number} hours .', 'The {word} is on the {word} .',
    'Ask {name} about the {word} .', 'In {city} there are {number} boats .', '{name} bought {number} apples in {city} .',
]  # fmt: skip
TAGS = {'{name}': 'PERSON', '{city}': 'CITY', '{number}': 'NUMBER'}


def token_classification(rng, number, names, cities):
    """Sentences word by word: who, where, how many."""
    draw = {'{name}': lambda: rng.choice(names), '{city}': lambda: rng.choice(cities), '{number}': lambda: str(rng.randrange(2, 100)),
            '{word}': lambda: rng.choice(WORDS)}  # fmt: skip
    rows = []
    for _ in range(number):
        places = rng.choice(SENTENCES).split()
        words = [draw[place]() if place in draw else place for place in places]
        rows.append({'tokens': words, 'labels': [TAGS.get(place, 'O') for place in places]})
    return rows


def multi_task(rng, held_out, number):
    """Questions about facts, texts that say everything several times, words to translate: a task each."""
    words = [word for place, word in enumerate(CHINESE) if (place % 6 == 0) == held_out or not held_out]

    def qa():
        example = tasks.draw(rng, held_out=held_out, task='fact')
        return {'task': 'qa', 'question': example.question, 'answer': example.answer}

    def summarization():
        row = tasks.draw(rng, held_out=held_out, task='copy').answer
        return {'task': 'summarization', 'text': '. '.join([row] * rng.randint(2, 3)) + '.', 'summary': row}

    def translation():
        word = rng.choice(words)
        return {'task': 'translation', 'text': word, 'translation': CHINESE[word]}

    return [rng.choice([qa, qa, summarization, translation])() for _ in range(number)]


def files():
    """File name → rows."""
    triple, listed = ('anchor', 'positive', 'negative'), ('query', 'positive', 'negative')
    return {
        'preference.jsonl': preference(Random(10), False, 800),
        'preference_heldout.jsonl': preference(Random(11), True, 200),
        'preference_shorter.jsonl': shorter(Random(12), False, 600),
        'preference_shorter_heldout.jsonl': shorter(Random(13), True, 200),
        'kto.jsonl': kto(Random(14), 1200),
        'embedding.jsonl': search(Random(20), False, 1000, 2, triple),
        'embedding_heldout.jsonl': search(Random(21), True, 200, 2, triple),
        'similarity.jsonl': similarity(Random(22), 400),
        'reranker.jsonl': search(Random(23), False, 400, 4, listed),
        'reranker_heldout.jsonl': search(Random(24), True, 100, 4, listed),
        'classification.jsonl': classification(Random(30), False, 600),
        'classification_heldout.jsonl': classification(Random(31), True, 150),
        'token_classification.jsonl': token_classification(Random(40), 300, NAMES[6:], CITIES[6:]),
        'token_classification_heldout.jsonl': token_classification(Random(41), 80, NAMES[:6], CITIES[:6]),
        'multi_task.jsonl': multi_task(Random(50), False, 600),
        'multi_task_heldout.jsonl': multi_task(Random(51), True, 90),
    }
