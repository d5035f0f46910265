"""A headless browser, and chat pages in front of a server whose answers are known."""

import os
import shutil
import time

import pytest

from tests.helpers.fake_openai import fake_server

CHROMIUM = shutil.which('chromium')


@pytest.fixture(scope='session')
def browser():
    """Chromium without a window."""
    sync_api = pytest.importorskip('playwright.sync_api')
    if CHROMIUM is None:
        pytest.skip('chromium is not installed')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def server():
    with fake_server('fake', 'fake-lora') as server:
        yield server


@pytest.fixture(scope='module')
def url(server):
    """The page in front of the fake server, for models that see."""
    pytest.importorskip('gradio')
    from swift.ui.app import app_main

    return app_main(['--base_url', server.url, '--server_port', '0', '--is_multimodal', 'true', '--studio_title', 'A title'], block=False)


class Page:
    """The chat page as a user works it."""

    def __init__(self, browser, url, locale='en-US'):
        self.context = browser.new_context(viewport={'width': 1280, 'height': 860}, locale=locale)
        self.page = self.context.new_page()
        self.asked = set()
        self.page.on('request', lambda request: self.asked.add(request.url.split('/')[2]) if request.url.startswith('http') else None)
        self.page.goto(url)
        self.page.wait_for_selector('#question textarea')

    def ask(self, text):
        self.page.fill('#question textarea', text)
        self.page.keyboard.press('Enter')

    @property
    def said(self):
        """The texts in the conversation, in order."""
        return [message.strip() for message in self.page.locator('#chat [data-testid=user], #chat [data-testid=bot]').all_inner_texts() if message.strip()]

    def until(self, condition, seconds=15):
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, self.said
            self.page.wait_for_timeout(15)
        return found

    def answered(self):
        """Wait for the end of the answer; what the line below the conversation says."""
        return self.until(lambda: self.page.inner_text('#note .swift-note').strip())

    def picture(self, name):
        """A screenshot where SWIFT_SCREENSHOTS names a folder."""
        if folder := os.environ.get('SWIFT_SCREENSHOTS'):
            self.page.screenshot(path=os.path.join(folder, f'{name}.png'))


@pytest.fixture
def page(browser, server, url):
    server.pause = 0.0
    server.bodies.clear()
    page = Page(browser, url)
    yield page
    page.context.close()
