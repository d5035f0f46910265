"""The chat page: a conversation on the left, how answers are drawn on the right.

What answers is a `talk`: `name`, `kinds` (of image, video, audio: what may be shown), `choices` (models or adapters by name),
`defaults` (setting → value), `system`, `read(text, files)` → user message, and `ask(messages, choice, settings)` → answers so far.
"""

from __future__ import annotations

import html
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from swift.core.errors import SwiftError
from swift.ui.server import gradio
from swift.ui.words import LANGUAGES, WORDS, language_of

REDRAWN = 0.05
"""Seconds between two looks at a growing answer."""

SETTINGS = {
    'max_tokens': dict(minimum=1, step=1, precision=0),
    'temperature': dict(minimum=0, maximum=2, step=0.1),
    'top_p': dict(minimum=0.01, maximum=1, step=0.05),
    'top_k': dict(minimum=0, step=1, precision=0),
    'repetition_penalty': dict(minimum=0.1, maximum=3, step=0.05),
    'seed': dict(minimum=0, step=1, precision=0),
}
"""Setting of an answer → its field on the page."""

_FILES = {'image': 'image', 'video': 'video', 'audio': 'audio'}

CSS = """
.swift-title h1 { margin: 0; font-size: 1.35rem; font-weight: 650; overflow-wrap: anywhere; }
.swift-title p { margin: 2px 0 0; font-size: .85rem; opacity: .7; overflow-wrap: anywhere; }
.swift-note { min-height: 1.4rem; font-size: .8rem; opacity: .7; padding: 0 4px; }
footer { display: none !important; }
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
        self._gr = gradio()
        with self._gr.Blocks(title=title, fill_height=True, analytics_enabled=False) as self.page:
            self._build()
            self._connect()

    # ---- components

    def _build(self) -> None:
        gr, words = self._gr, WORDS[self._language or 'en']
        self._talked = gr.State([])
        with gr.Row(equal_height=True):
            gr.HTML(self._heading(), elem_classes='swift-title', scale=1)
            self._switch = gr.Radio(
                [(name, code) for code, name in LANGUAGES.items()], value=self._language or 'en', container=False, scale=0, min_width=190,
                show_label=False, elem_id='language',
            )  # fmt: skip
        with gr.Row(scale=1):
            with gr.Column(scale=3, min_width=420):
                self._chat = gr.Chatbot(
                    show_label=False, scale=1, height='66vh', buttons=['copy'], elem_id='chat',
                    latex_delimiters=[{'left': a, 'right': b, 'display': d} for a, b, d in (('$$', '$$', True), ('\\[', '\\]', True), ('\\(', '\\)', False))],
                )  # fmt: skip
                self._note = gr.HTML('', elem_classes='swift-note', elem_id='note')
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
                self._panel = gr.Accordion(words['settings'], open=True)
                with self._panel:
                    self._numbers = [
                        gr.Number(self._talk.defaults.get(name), label=words[name], placeholder=words['own'], elem_id=name, **form)
                        for name, form in SETTINGS.items()
                    ]

    def _question(self, words: dict[str, str]) -> Any:
        common = dict(placeholder=words['question'], show_label=False, submit_btn=True, stop_btn=False, autofocus=True, lines=1, max_lines=12)
        if not self._talk.kinds:
            return self._gr.Textbox(elem_id='question', **common)
        sources = ['upload', 'microphone'] if 'audio' in self._talk.kinds else ['upload']
        return self._gr.MultimodalTextbox(
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
        asked = [self._talked, self._system, self._choice, *self._numbers, self._switch]
        sent = self._box.submit(self._say, [self._box, self._talked, self._switch], drawn, queue=False, api_visibility='private')
        first = sent.then(self._answer, asked, drawn, api_visibility='private')
        again = self._retry.click(self._forget, [self._talked, self._switch], drawn, queue=False, api_visibility='private')
        second = again.then(self._answer, asked, drawn, api_visibility='private')
        self._box.stop(self._stop, None, self._box, queue=False, cancels=[first, second], api_visibility='private')
        self._clear.click(self._stop, None, self._box, queue=False, cancels=[first, second], api_visibility='private').then(
            lambda: ([], [], ''), None, [self._chat, self._talked, self._note], queue=False, api_visibility='private'
        )
        renamed = [self._box, self._retry, self._clear, self._choice, self._system, self._panel, *self._numbers]
        self._switch.change(self._rename, self._switch, renamed, queue=False, api_visibility='private')
        if self._language is None:
            self.page.load(lambda request: language_of(request.headers.get('accept-language')), None, self._switch, queue=False)

    def _rename(self, language: str) -> list[Any]:
        """All labels in another language."""
        gr, words = self._gr, WORDS[language]
        return [
            gr.update(placeholder=words['question']),
            gr.update(value=words['retry']),
            gr.update(value=words['clear']),
            gr.update(label=words['model'], choices=self._named(words)),
            gr.update(label=words['system'], placeholder=words['system_hint']),
            gr.update(label=words['settings']),
            *(gr.update(label=words[name], placeholder=words['own']) for name in SETTINGS),
        ]

    def _say(self, said: Any, talked: list[dict], language: str) -> tuple[Any, ...]:
        """The user's message joins the conversation."""
        text, files = (said, []) if isinstance(said, str) else (said.get('text') or '', said.get('files') or [])
        if not text.strip() and not files:
            return self._chat_of(talked, language), talked, self._gr.update(), ''
        try:
            message = self._talk.read(text, files)
        except SwiftError as error:
            self._gr.Warning(html.escape(str(error)))
            return self._chat_of(talked, language), talked, self._gr.update(), ''
        talked = [*talked, message]
        return self._chat_of(talked, language), talked, self._busy(), ''

    def _forget(self, talked: list[dict], language: str) -> tuple[Any, ...]:
        """The last answer leaves the conversation."""
        while talked and talked[-1]['role'] != 'user':
            talked = talked[:-1]
        if not talked:
            self._gr.Info(WORDS[language]['empty'])
        return self._chat_of(talked, language), talked, self._busy() if talked else self._gr.update(), ''

    def _stop(self, request: Any) -> Any:
        if event := self._stops.get(request.session_hash):
            event.set()
        return self._idle()

    def _answer(self, talked: list[dict], system: str, choice: str | None, *rest: Any) -> Iterator[tuple[Any, ...]]:
        """The answer as it grows. `rest`: the numbers, the language, Gradio's request."""
        *numbers, language, request = rest
        if not talked or talked[-1]['role'] != 'user':
            yield self._chat_of(talked, language), talked, self._idle(), ''
            return
        settings = {name: value for name, value in zip(SETTINGS, numbers, strict=True) if value is not None}
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
            self._gr.Warning(html.escape(str(error)), duration=20)
            yield self._chat_of(talked[:-1], language), talked[:-1], self._idle(self._box_of(talked[-1])), ''
        finally:
            self._stops.pop(request.session_hash, None)

    # ---- how things look

    def _busy(self) -> Any:
        return self._gr.update(value=None if self._talk.kinds else '', submit_btn=False, stop_btn=True)

    def _idle(self, value: Any = None) -> Any:
        given = {} if value is None else {'value': value}
        return self._gr.update(submit_btn=True, stop_btn=False, **given)

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
