"""`swift app`: a page to chat with a model, in this process or behind a URL."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from swift.arguments import parse_args
from swift.ui.server import gradio, launch


def app_main(args: Any = None, *, block: bool = True) -> str:
    """Serve the chat page until it is interrupted. `args`: None (sys.argv), a list of words, a mapping, or AppArguments.

    Returns the address of the page; with `block=False` at once, and the page lives as long as the process.
    """
    args = parse_args('app', args)
    gradio()  # whether it is there, before a model is loaded
    from swift.ui.chat_page import CSS, chat_page

    talk = import_module('swift.pipelines.app').Talk(args)
    return launch(chat_page(talk, title=args.studio_title, language=args.lang), args, css=CSS, block=block)
