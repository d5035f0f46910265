"""The chat page in a browser: what is typed goes to the model as it should, and the answer is seen while it is written."""

import pytest
from PIL import Image

from tests.ui.conftest import Page


def test_an_answer_is_seen_while_it_is_written(page, server):
    server.pause = 0.08
    page.ask('one two three four five six')
    seen = []
    while not page.page.inner_text('#note .swift-note').strip():
        texts = page.said
        if len(texts) > 1 and (not seen or seen[-1] != texts[-1]):
            seen.append(texts[-1])
        page.page.wait_for_timeout(20)
    assert page.said == ['one two three four five six', 'You said: one two three four five six'], page.page.inner_text('#note .swift-note')
    assert len(seen) >= 4 and all('You said: one two three four five six'.startswith(text) for text in seen)
    assert page.page.inner_text('#note .swift-note').startswith('3 tokens in ')
    assert page.asked == {page.page.url.split('/')[2]}  # nothing is fetched from elsewhere
    page.picture('answer')


def test_the_conversation_goes_on_and_starts_anew(page, server):
    page.ask('first')
    page.answered()
    page.ask('second')
    page.until(lambda: len(page.said) == 4 and page.answered())
    assert [message['content'] for message in server.bodies[1]['messages']] == ['first', 'You said: first', 'second']
    page.page.click('#retry')
    page.until(lambda: len(server.bodies) == 3 and page.answered())
    assert server.bodies[2]['messages'] == server.bodies[1]['messages'] and len(page.said) == 4
    page.page.click('#clear')
    page.until(lambda: not page.said)
    page.ask('third')
    page.answered()
    assert [message['content'] for message in server.bodies[3]['messages']] == ['third']


def test_stopping_keeps_what_was_said_and_leaves_the_server(page, server):
    server.pause = 0.1
    page.ask('word ' * 200)
    page.until(lambda: len(page.said) > 1 and 'word word' in page.said[-1])
    page.page.click('#question .stop-button')
    page.until(lambda: server.at_once == 0)
    server.pause = 0.0
    part = page.said[-1]
    assert part.startswith('You said: word') and len(part) < 300
    page.ask('and now?')
    page.until(lambda: 'You said: and now?' in page.said)
    assert server.bodies[1]['messages'][1]['content'].strip() == part


def test_settings_reach_the_model(page, server):
    page.ask('plain')
    page.answered()
    assert {key: server.bodies[0][key] for key in server.bodies[0] if key not in ('messages', 'stream', 'stream_options')} == {'model': 'fake', 'max_tokens': 2048}
    page.page.fill('#system textarea', 'Be brief.')
    page.page.fill('#seed input', '7')
    page.page.uncheck('#own input')
    page.page.wait_for_selector('#temperature input[type=number]')
    page.page.fill('#temperature input[type=number]', '0.5')
    page.page.fill('#max_tokens input[type=number]', '33')
    page.picture('settings')
    page.ask('again')
    page.until(lambda: len(server.bodies) == 2 and page.answered())
    body = server.bodies[1]
    assert body['messages'][0] == {'role': 'system', 'content': 'Be brief.'}
    assert [body[name] for name in ('max_tokens', 'temperature', 'top_p', 'top_k', 'repetition_penalty', 'seed')] == [33, 0.5, 1, 0, 1, 7]


def test_another_model_answers(page, server):
    page.page.click('#model input')
    page.page.click('[role=option]:has-text("fake-lora")')
    page.ask('who?')
    page.answered()
    assert server.bodies[0]['model'] == 'fake-lora'


def test_thoughts_are_folded(page):
    page.ask('think hard')
    page.answered()
    assert page.page.get_by_text('Thought').count() == 1
    assert not page.page.get_by_text('Let me see.').is_visible()
    page.picture('thought')
    page.page.get_by_text('Thought').click()
    page.until(lambda: page.page.get_by_text('Let me see.').is_visible())


def test_an_image_goes_along(page, server, tmp_path):
    Image.new('RGB', (40, 30), 'orange').save(tmp_path / 'a.png')
    page.page.set_input_files('#question input[type=file]', str(tmp_path / 'a.png'))
    page.page.wait_for_selector('#question img')
    page.ask('what is this')
    page.answered()
    parts = server.bodies[0]['messages'][0]['content']
    assert [part['type'] for part in parts] == ['image_url', 'text']
    assert parts[0]['image_url']['url'].startswith('data:image/png;base64,')
    assert page.page.locator('#chat img').count() >= 1
    page.picture('image')


def test_a_refusal_is_told_and_the_question_comes_back(page, server):
    server.refusals = [(400, [], {'error': {'message': 'no such thing'}})]
    page.ask('try this')
    page.page.wait_for_selector('text=no such thing')
    page.until(lambda: page.page.input_value('#question textarea') == 'try this')
    assert page.said == []


def test_the_language_is_the_browsers_and_can_be_switched(page, browser, url):
    assert page.page.get_by_text('System prompt').is_visible()
    page.page.click('#language >> text=中文')
    page.until(lambda: page.page.get_by_text('系统提示词').is_visible())
    assert page.page.inner_text('#retry') == '↻ 重新回答'
    page.picture('chinese')
    chinese = Page(browser, url, locale='zh-CN')
    chinese.until(lambda: chinese.page.get_by_text('系统提示词').is_visible())
    chinese.page.click('#language >> text=English')
    chinese.until(lambda: chinese.page.get_by_text('System prompt').is_visible())
    chinese.context.close()


def test_the_environment_names_the_language(browser, server, monkeypatch):
    from swift.ui.app import app_main

    monkeypatch.setenv('SWIFT_UI_LANG', 'zh')
    page = Page(browser, app_main(['--base_url', server.url, '--server_port', '0'], block=False))
    assert page.page.get_by_text('系统提示词').is_visible()
    assert page.page.locator('#question input[type=file]').count() == 0  # a server's model takes text unless told otherwise
    page.context.close()


@pytest.mark.slow
def test_the_tiny_model_answers_in_its_own_words(browser):
    from swift.ui.app import app_main

    page = Page(browser, app_main(['--model', 'tiny', '--server_port', '0', '--temperature', '0'], block=False))
    page.ask('What is 2 + 3?')
    page.answered()
    assert page.said == ['What is 2 + 3?', '5']
    assert page.asked == {page.page.url.split('/')[2]}
    page.picture('tiny')
    page.context.close()
