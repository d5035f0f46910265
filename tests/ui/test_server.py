"""How the page is put on the network, and what is said when it can't be."""

import socket

import pytest

from swift.core.errors import SwiftError
from swift.ui.server import gradio, root_path
from swift.ui.words import WORDS, language_of


def test_a_dsw_notebook_gets_its_path(monkeypatch):
    monkeypatch.delenv('GRADIO_ROOT_PATH', raising=False)
    monkeypatch.setenv('JUPYTER_NAME', 'notebook-7')
    root_path(7860)
    import os

    assert 'GRADIO_ROOT_PATH' not in os.environ
    monkeypatch.setenv('JUPYTER_NAME', 'dsw-12345')
    root_path(7860)
    assert os.environ.pop('GRADIO_ROOT_PATH') == '/dsw-12345/proxy/7860'
    monkeypatch.setenv('GRADIO_ROOT_PATH', '/mine')
    root_path(7860)
    assert os.environ['GRADIO_ROOT_PATH'] == '/mine'


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'gradio', None)
    with pytest.raises(SwiftError, match=r"the web page needs the package gradio, .* pip install 'swift-finetune\[ui\]'"):
        gradio()


def test_a_taken_port_is_one_line():
    pytest.importorskip('gradio')
    import gradio as gr

    from swift.arguments import parse_args
    from swift.ui.server import launch

    with socket.socket() as taken, gr.Blocks() as page:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        args = parse_args('app', ['--model', 'm', '--server_port', str(port)])
        with pytest.raises(SwiftError, match=rf'^port {port} of 127.0.0.1 can not be used: .*; choose another --server_port$'):
            launch(page, args, block=False)


def test_both_languages_say_the_same_things():
    assert WORDS['en'].keys() == WORDS['zh'].keys()
    for key in WORDS['en']:
        assert WORDS['en'][key].count('{') == WORDS['zh'][key].count('{'), key


@pytest.mark.parametrize('header, language', [('zh-CN,zh;q=0.9', 'zh'), ('en-US,zh;q=0.5', 'en'), ('de', 'en'), ('', 'en'), (None, 'en'), ('ZH-tw', 'zh')])
def test_languages_of_browsers(header, language):
    assert language_of(header) == language
