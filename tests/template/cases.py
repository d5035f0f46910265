"""Our own small templates, one for each way real ones differ, and conversations with words that can be told apart."""

from pathlib import Path

DATA = Path(__file__).parent / 'data'
BOS, EOS = '<s>', '</s>'
NAMES = sorted(p.stem for p in DATA.glob('*.jinja'))

TOOLS = [
    {
        'type': 'function',
        'function': {
            'name': 'weather',
            'description': 'DEFINED the weather of a city',
            'parameters': {'type': 'object', 'properties': {'city': {'type': 'string'}}, 'required': ['city']},
        },
    }
]


def source(name: str) -> str:
    return (DATA / f'{name}.jinja').read_text(encoding='utf-8')


def user(n: int, text: str = 'what is it?') -> dict:
    return {'role': 'user', 'content': f'ASK{n} {text} END{n}'}


def answer(n: int, text: str = 'it is this.', **more) -> dict:
    return {'role': 'assistant', 'content': f'SAY{n} {text} DONE{n}', **more}


def calls(*cities: str, content: str = '') -> dict:
    made = [
        {'type': 'function', 'id': f'call0000{i}', 'function': {'name': 'weather', 'arguments': {'city': c}}}
        for i, c in enumerate(cities)
    ]
    return {'role': 'assistant', 'content': content, 'tool_calls': made}


def result(n: int) -> dict:
    return {'role': 'tool', 'name': 'weather', 'tool_call_id': 'call00000', 'content': f'GOT{n} sunny'}


SYSTEM = {'role': 'system', 'content': 'SYS be brief SYSEND'}

CONVERSATIONS = {
    'one': [user(0), answer(0)],
    'three': [user(0), answer(0), user(1), answer(1), user(2), answer(2)],
    'system': [SYSTEM, user(0), answer(0), user(1), answer(1)],
    'spaces': [user(0), {'role': 'assistant', 'content': '  SAY0 it DONE0\n\n'}, user(1), answer(1)],
    'lines': [user(0), answer(0, 'a\n\n  b\t\n    c()\n'), user(1), answer(1)],
    'unicode': [user(0, '你好 é🙂'), answer(0, '答案：北京。🙂 ñ “引号”'), user(1), answer(1, '好的 👨‍👩‍👧')],
    'markup': [user(0, '<b>&amp; "q"'), answer(0, '<b>x</b> &amp; {{x}} {% y %} [INST] <|im_end'), user(1), answer(1)],
    'echo': [user(0), {'role': 'assistant', 'content': 'SAY0 you said: what is it? DONE0'}, user(0), answer(0)],
    'roles': [user(0), answer(0, 'user: hi\nassistant: hello\nUSER: x ASSISTANT: y'), user(1), answer(1)],
    'tools': [SYSTEM, user(0), calls('CITY0'), result(0), answer(1)],
    'parallel': [user(0), calls('CITY0', 'CITY1'), result(0), result(1), answer(1), user(2), answer(2)],
    'calling': [user(0), calls('CITY0', content='SAY0 let me look DONE0'), result(0), answer(1)],
    'reasoning': [user(0), answer(0, reasoning_content='WHY0\nbecause WHYSTOP0')],
    'inline': [user(0), {'role': 'assistant', 'content': '<think>\nWHY0\nbecause WHYSTOP0\n</think>\n\nSAY0 it DONE0'}],
    'thoughts': [user(0), answer(0, reasoning_content='WHY0 x'), user(1), answer(1, reasoning_content='WHY1 y')],
    'empty': [user(0), {'role': 'assistant', 'content': ''}, user(1), answer(1)],
}


def tools_of(conversation: str) -> list | None:
    return TOOLS if conversation in ('tools', 'parallel', 'calling') else None


def words(messages: list[dict], trained: bool) -> list[str]:
    """The unmistakable words of the assistant (`trained`), or of everybody else."""
    marks = ('SAY', 'DONE', 'CITY', 'WHY') if trained else ('ASK', 'END', 'GOT', 'SYS', 'DEFINED')
    return [w for m in messages for w in str(m).replace('\\n', ' ').replace("'", ' ').split() if w.startswith(marks)]
