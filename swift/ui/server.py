"""How a page is put on the network."""

from __future__ import annotations

import os
from typing import Any

from swift.core.errors import MissingDependencyError, SwiftError
from swift.core.ports import free_port

FONTS = ('system-ui', '-apple-system', 'Segoe UI', 'Noto Sans', 'PingFang SC', 'Microsoft YaHei', 'sans-serif')
"""Fonts of the machine: nothing is fetched from elsewhere."""


def gradio() -> Any:
    """The package gradio, which asks nobody for its version. Raises MissingDependencyError naming the extra."""
    os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')
    try:
        import gradio
    except ImportError as error:
        raise MissingDependencyError('gradio', 'the web page', extra='ui') from error
    return gradio


def root_path(port: int) -> None:
    """Behind the proxy of a DSW notebook the page lives below a path; Gradio reads it from GRADIO_ROOT_PATH, which wins if it is set."""
    notebook = os.environ.get('JUPYTER_NAME', '')
    if 'dsw-' in notebook and 'GRADIO_ROOT_PATH' not in os.environ:
        os.environ['GRADIO_ROOT_PATH'] = f'/{notebook}/proxy/{port}'


def launch(page: Any, args: Any, *, css: str = '', block: bool = True) -> str:
    """Serve a page as AppArgs say; returns its address (after it was left, with `block`). Raises SwiftError when the port is taken."""
    gr = gradio()
    port = args.server_port or free_port(args.server_name)
    root_path(port)
    theme = gr.themes.Default(primary_hue='indigo', font=FONTS, font_mono=('ui-monospace', 'Consolas', 'monospace'))
    try:
        _, url, public = page.queue(default_concurrency_limit=None).launch(
            server_name=args.server_name, server_port=port, share=args.share, inbrowser=args.open_browser, prevent_thread_lock=True,
            quiet=True, show_error=True, theme=theme, css=css, footer_links=[], ssr_mode=False,
        )  # fmt: skip
    except OSError as error:
        raise SwiftError(f'port {port} of {args.server_name} can not be used: {str(error).split(".")[0]};', 'choose another --server_port') from error
    print(f'chat page: {url}' + (f'  public: {public}' if public else ''), flush=True)
    if block:
        page.block_thread()
    return url
