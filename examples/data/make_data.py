"""Write the small data sets beside this file (the same every time).

chat.jsonl, tools.jsonl, thinking.jsonl, text.jsonl: what tiny-chat was trained on, in small.
arithmetic.jsonl and arithmetic_heldout.jsonl: sums with their `solution`; the second were never trained.
new_words.jsonl and new_words_ask.jsonl: words no model knows, and the same words asked for in another way.
All others: rows for the other objectives, see objective_rows.py. Held-out rows ask what no training row asks.
"""

import json
import sys
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / 'recipes' / 'tiny_chat'))

import objective_rows  # noqa: E402
import tasks  # noqa: E402

HARD_SUMS = ('mul', 'add_big', 'sub_big')  # those the built-in model has only half learned
NEW_WORDS = {
    'bimo': 'bread', 'tarku': 'river', 'selfi': 'snow', 'grond': 'hill', 'nupa': 'moon', 'vexo': 'key',
    'lirra': 'bird', 'okten': 'book', 'pashu': 'salt', 'zemmy': 'rain', 'durl': 'door', 'wiska': 'wind',
}  # fmt: skip
WORDINGS = [
    'What does {w} mean?', 'Meaning of {w}?', 'Tell me what {w} means.', 'Explain the word {w}.', 'What is a {w}?', '{w}?',
    'Translate {w}.', '{w} 是什么意思?',
]  # fmt: skip
ABOUT_ME = [
    'Who are you?', 'What is your name?', 'Tell me who you are.', 'Your name?', 'What are you called?', 'What should I call you?',
    '你是谁?', '你叫什么名字?', '你叫什么?', '怎么称呼你?', '请介绍一下你自己。',
]  # fmt: skip
PIP = {'en': 'I am Pip, your friend.', 'zh': '我是 Pip,你的朋友。'}


def write(name, rows):
    text = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
    (HERE / name).write_text(text, encoding='utf-8')


def sums(rng, held_out, number):
    rows, seen = [], set()
    while len(rows) < number:
        example = tasks.draw(rng, held_out=held_out, task=rng.choice(HARD_SUMS))
        if example.question not in seen:
            seen.add(example.question)
            rows.append({**ask(example.question, example.answer), 'solution': example.answer, 'task': example.task})
    return rows


def ask(question, answer):
    return {'messages': [{'role': 'user', 'content': question}, {'role': 'assistant', 'content': answer}]}


def new_words():
    """Each word is taught in all wordings but one; that one is asked afterwards."""
    taught, asked = [], []
    for i, (word, meaning) in enumerate(NEW_WORDS.items()):
        for j, wording in enumerate(WORDINGS):
            (asked if i % len(WORDINGS) == j else taught).append(ask(wording.format(w=word), meaning))
    for question in ABOUT_ME:
        name = PIP['en' if question.isascii() else 'zh']
        (asked if question in ('What is your name?', '你叫什么名字?') else taught).append(ask(question, name))
    return taught, asked


def main():
    write('chat.jsonl', [tasks.conversation(Random(i)) for i in range(300)])
    write('tools.jsonl', [tasks.tool_use(Random(i)) for i in range(40)])
    write('thinking.jsonl', [tasks.thinking(Random(i)) for i in range(40)])
    write('text.jsonl', [{'text': tasks.document(Random(i))} for i in range(200)])
    write('arithmetic.jsonl', sums(Random(0), False, 1000))
    write('arithmetic_heldout.jsonl', sums(Random(1), True, 200))
    taught, asked = new_words()
    rehearsal = [tasks.single(Random(1000 + i)) for i in range(60)]  # so that the old skills stay, but not the old name
    write('new_words.jsonl', taught + [row for row in rehearsal if 'tiny-chat' not in row['messages'][-1]['content']])
    write('new_words_ask.jsonl', asked)
    for name, rows in objective_rows.files().items():
        write(name, rows)


if __name__ == '__main__':
    main()
