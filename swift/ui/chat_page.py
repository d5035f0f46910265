"""The chat page: a conversation on the left, how answers are drawn on the right.

What answers is a `talk`: `name`, `kinds` (of image, video, audio: what may be shown), `choices` (models or adapters by name),
`defaults` (setting → value; None: not said), `system`, `read(text, files)` → user message, and `ask(messages, choice, settings)` → answers so far.
"""

from __future__ import annotations

import html
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import gradio as gr

from swift.core.errors import SwiftError
from swift.ui.words import LANGUAGES, WORDS, language_of

REDRAWN = 0.05
"""Seconds between two looks at a growing answer."""

DRAWN = {
    'temperature': (1.0, dict(minimum=0, maximum=2, step=0.05)),
    'top_p': (1.0, dict(minimum=0.05, maximum=1, step=0.05)),
    'top_k': (0, dict(minimum=0, maximum=200, step=1)),
    'repetition_penalty': (1.0, dict(minimum=0.5, maximum=2, step=0.05)),
}
"""Setting that the model may have its own idea of → the value that changes nothing, and its slider."""

LONGEST = 32_768
"""Right end of the slider of the longest answer."""

_FILES = {'image': 'image', 'video': 'video', 'audio': 'audio'}

CSS = """
.swift-title h1 { margin: 0; font-size: 1.35rem; font-weight: 650; overflow-wrap: anywhere; }
.swift-title p { margin: 2px 0 0; font-size: .85rem; opacity: .7; overflow-wrap: anywhere; }
.swift-note { min-height: 1.4rem; flex-grow: 0 !important; font-size: .8rem; opacity: .7; padding: 0 4px; }
footer, #chat button[title="Share"] { display: none !important; }
.swift-body { align-items: flex-start; }
"""


def chat_page(talk: Any, *, title: str | None = None, language: str | None = None) -> Any:
    """The page as Gradio Blocks, not served yet. `language`: `en` or `zh`; None: that of each visitor's browser."""
    return _ChatPage(talk, title or talk.name, language).page


class _ChatPage:
    """Components and what happens when they are used. A conversation is a list of messages, as the engine takes them."""

    def __init__(self, talk: Any, title: str, language: str | None):
        self._talk, self._title, self._language = talk, title, language
        self._stops: dict[str, threading.Event] = {}
        """Session → set when its answer is to end."""
        with gr.Blocks(title=title, fill_height=True, analytics_enabled=False) as self.page:
            self._build()
            self._connect()

    # ---- components

    def _build(self) -> None:
        words = WORDS[self._language or 'en']
        self._talked = gr.State([])
        with gr.Row(equal_height=True):
            gr.HTML(self._heading(), elem_classes='swift-title', padding=False)
            self._switch = gr.Radio(
                [(name, code) for code, name in LANGUAGES.items()], value=self._language or 'en', container=False, scale=0, min_width=190,
                show_label=False, elem_id='language',
            )  # fmt: skip
        with gr.Row(elem_classes='swift-body'):
            with gr.Column(scale=3, min_width=420):
                self._chat = gr.Chatbot(
                    show_label=False, height='calc(100vh - 330px)', min_height=260, buttons=['copy'], elem_id='chat',
                    latex_delimiters=[{'left': a, 'right': b, 'display': d} for a, b, d in (('$$', '$$', True), ('\\[', '\\]', True), ('\\(', '\\)', False))],
                )  # fmt: skip
                self._note = gr.HTML('', elem_classes='swift-note', elem_id='note', padding=False)
                self._box = self._question(words)
                with gr.Row():
                    self._retry = gr.Button(words['retry'], size='sm', elem_id='retry')
                    self._clear = gr.Button(words['clear'], size='sm', elem_id='clear')
            with gr.Column(scale=1, min_width=260):
                choices = self._talk.choices
                self._choice = gr.Dropdown(
                    self._named(words), value=choices[0] if choices else None, label=words['model'], visible=len(choices) > 1, elem_id='model'
                )
                self._system = gr.Textbox(
                    self._talk.system or '', lines=3, max_lines=8, label=words['system'], placeholder=words['system_hint'], elem_id='system'
                )
                self._settings(words)

    def _settings(self, words: dict[str, str]) -> None:
        """How answers are drawn: as the model suggests, or as the sliders say."""
        defaults = self._talk.defaults
        own = all(defaults[name] is None for name in DRAWN)
        with gr.Accordion(words['settings']) as self._panel:
            longest = defaults['max_tokens']
            self._length = gr.Slider(1, max(LONGEST, longest or 1), longest or LONGEST, step=1, label=words['max_tokens'], elem_id='max_tokens')
            self._own = gr.Checkbox(own, label=words['own'], elem_id='own')
            self._sliders = [
                gr.Slider(value=usual if defaults[name] is None else defaults[name], label=words[name], elem_id=name, visible=not own, **form)
                for name, (usual, form) in DRAWN.items()
            ]
            seed = defaults['seed']
            self._seed = gr.Number(-1 if seed is None else seed, label=words['seed'], minimum=-1, precision=0, elem_id='seed')

    def _question(self, words: dict[str, str]) -> Any:
        common = dict(placeholder=words['question'], show_label=False, submit_btn=True, stop_btn=False, autofocus=True, lines=1, max_lines=12)
        if not self._talk.kinds:
            return gr.Textbox(elem_id='question', **common)
        sources = ['upload', 'microphone'] if 'audio' in self._talk.kinds else ['upload']
        return gr.MultimodalTextbox(
            file_types=[_FILES[kind] for kind in self._talk.kinds], file_count='multiple', sources=sources, elem_id='question', **common
        )

    def _heading(self) -> str:
        below = '' if self._title == self._talk.name else f'<p>{html.escape(self._talk.name)}</p>'
        return f'<h1>{html.escape(self._title)}</h1>{below}'

    def _named(self, words: dict[str, str]) -> list[tuple[str, str]]:
        return [(name or words['base'], name) for name in self._talk.choices]

    # ---- events

    def _connect(self) -> None:
        drawn = [self._chat, self._talked, self._box, self._note]
        asked = [self._talked, self._system, self._choice, self._switch, self._length, self._own, self._seed, *self._sliders]
        at_once = dict(queue=False, show_progress='hidden', api_visibility='private')
        in_turn = dict(show_progress='hidden', api_visibility='private')
        sent = self._box.submit(self._say, [self._box, self._talked, self._switch], drawn, **at_once)
        again = self._retry.click(self._forget, [self._talked, self._switch], drawn, **at_once)
        running = [event.then(self._answer, asked, drawn, **in_turn) for event in (sent, again)]
        self._box.stop(self._stop, None, self._box, cancels=running, **at_once)
        for event in (self._clear.click, self._chat.clear):
            stopped = event(self._stop, None, self._box, cancels=running, **at_once)
            stopped.then(lambda: ([], [], ''), None, [self._chat, self._talked, self._note], **at_once)
        renamed = [self._box, self._retry, self._clear, self._choice, self._system, self._panel, self._length, self._own, self._seed, *self._sliders]
        self._switch.change(self._rename, self._switch, renamed, **at_once)
        if self._language is None:
            self.page.load(_browser_language, None, self._switch, **at_once)
        self._own.change(lambda own: [gr.update(visible=not own)] * len(DRAWN), self._own, self._sliders, **at_once)

    def _rename(self, language: str) -> list[Any]:
        """All labels in another language."""
        words = WORDS[language]
        return [
            gr.update(placeholder=words['question']),
            gr.update(value=words['retry']),
            gr.update(value=words['clear']),
            gr.update(label=words['model'], choices=self._named(words)),
            gr.update(label=words['system'], placeholder=words['system_hint']),
            gr.update(label=words['settings']),
            *(gr.update(label=words[name]) for name in ('max_tokens', 'own', 'seed', *DRAWN)),
        ]

    def _say(self, said: Any, talked: list[dict], language: str) -> tuple[Any, ...]:
        """The user's message joins the conversation."""
        text, files = (said, []) if isinstance(said, str) else (said.get('text') or '', said.get('files') or [])
        if not text.strip() and not files:
            return self._chat_of(talked, language), talked, gr.update(), ''
        try:
            message = self._talk.read(text, files)
        except SwiftError as error:
            gr.Warning(html.escape(str(error)))
            return self._chat_of(talked, language), talked, gr.update(), ''
        talked = [*talked, message]
        return self._chat_of(talked, language), talked, self._busy(), ''

    def _forget(self, talked: list[dict], language: str) -> tuple[Any, ...]:
        """The last answer leaves the conversation."""
        while talked and talked[-1]['role'] != 'user':
            talked = talked[:-1]
        if not talked:
            gr.Info(WORDS[language]['empty'])
        return self._chat_of(talked, language), talked, self._busy() if talked else gr.update(), ''

    def _stop(self, request: gr.Request) -> Any:
        if event := self._stops.get(request.session_hash):
            event.set()
        return self._idle()

    def _answer(
        self, talked: list[dict], system: str, choice: str | None, language: str, longest: int, own: bool, seed: int,
        temperature: float, top_p: float, top_k: int, repetition_penalty: float, request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """The answer as it grows."""
        if not talked or talked[-1]['role'] != 'user':
            yield self._chat_of(talked, language), talked, self._idle(), ''
            return
        settings = {'max_tokens': int(longest)} | ({} if own else _drawn((temperature, top_p, top_k, repetition_penalty))) | ({} if seed is None or seed < 0 else {'seed': int(seed)})
        asked = [{'role': 'system', 'content': system}, *talked] if system.strip() else talked
        ended = self._stops[request.session_hash] = threading.Event()
        answer, started, last = None, time.monotonic(), 0.0
        try:
            with closing(self._talk.ask(asked, choice, settings)) as answers:
                for answer in answers:
                    if ended.is_set():
                        break
                    if time.monotonic() - last >= REDRAWN:
                        last = time.monotonic()
                        now = [*talked, answer.message]
                        yield self._chat_of(now, language, growing=True), now, self._busy(), ''
            talked = talked if answer is None else [*talked, answer.message]
            note = '' if answer is None else self._note_of(answer, time.monotonic() - started, language)
            yield self._chat_of(talked, language), talked, self._idle(), note
        except SwiftError as error:
            gr.Warning(html.escape(str(error)), duration=20)
            yield self._chat_of(talked[:-1], language), talked[:-1], self._idle(self._box_of(talked[-1])), ''
        finally:
            self._stops.pop(request.session_hash, None)

    # ---- how things look

    def _busy(self) -> Any:
        return gr.update(value=None if self._talk.kinds else '', submit_btn=False, stop_btn=True)

    def _idle(self, value: Any = None) -> Any:
        given = {} if value is None else {'value': value}
        return gr.update(submit_btn=True, stop_btn=False, **given)

    def _box_of(self, message: dict) -> Any:
        """What was typed, to be sent again."""
        parts = _parts(message)
        text = ''.join(part['text'] for part in parts if part['type'] == 'text')
        files = [part[part['type']] for part in parts if part['type'] != 'text']
        return {'text': text, 'files': files} if self._talk.kinds else text

    def _note_of(self, answer: Any, seconds: float, language: str) -> str:
        words = WORDS[language]
        count = words['tokens'].format(count=answer.tokens, seconds=seconds) if answer.tokens else ''
        return html.escape((count + words.get(answer.reason, '')).removeprefix(' · '))

    def _chat_of(self, talked: Sequence[dict], language: str, *, growing: bool = False) -> list[dict]:
        """The conversation as the Chatbot shows it: media as files, thoughts folded once they are thought."""
        words, shown = WORDS[language], []
        for number, message in enumerate(talked):
            role = message['role']
            if thoughts := message.get('reasoning_content'):
                open_ = growing and number == len(talked) - 1 and not message.get('content')
                title = {'title': words['thinking'], 'status': 'pending'} if open_ else {'title': words['thought'], 'status': 'done'}
                shown.append({'role': role, 'content': thoughts, 'metadata': title})
            for part in _parts(message):
                content = part['text'] if part['type'] == 'text' else {'path': part[part['type']]}
                if content:
                    shown.append({'role': role, 'content': content})
            for call in message.get('tool_calls') or []:
                shown.append({'role': role, 'content': f'```json\n{json.dumps(call["function"], ensure_ascii=False, indent=2)}\n```'})
        return shown


def _parts(message: dict) -> list[dict]:
    content = message.get('content') or ''
    return [{'type': 'text', 'text': content}] if isinstance(content, str) else content


def _drawn(values: Sequence[float]) -> dict[str, float]:
    """Settings by their names; counts are whole numbers."""
    return {name: int(value) if isinstance(DRAWN[name][0], int) else value for name, value in zip(DRAWN, values, strict=True)}


def _browser_language(request: gr.Request) -> str:
    return language_of(request.headers.get('accept-language'))
