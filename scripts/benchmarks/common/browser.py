"""A folder as a web site, and a headless Chromium that opens it."""
import shutil
import tempfile
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

SWITCHES = (
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream')


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, '.mjs': 'text/javascript', '.wasm': 'application/wasm'}

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address of a server of this folder, while the context lasts."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(_Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}/'
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def chromium() -> Iterator['Chrome']:
    """A browser with a profile of its own.

    Raises:
        FileNotFoundError: Chromium or its driver is not installed.
    """
    from selenium import webdriver
    program, driver = shutil.which('chromium'), shutil.which('chromedriver')
    if not program or not driver:
        raise FileNotFoundError('there is no Chromium with chromedriver: install chromium and chromium-driver.')
    options = webdriver.ChromeOptions()
    options.binary_location = program
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for switch in (*SWITCHES, f'--user-data-dir={profile}'):
            options.add_argument(switch)
        browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
        browser.set_script_timeout(120)
        try:
            yield browser
        finally:
            browser.quit()


def open_page(browser: 'Chrome', url: str) -> None:
    """Open an exported page, and wait until it has loaded its model.

    Raises:
        RuntimeError: The page could not.
    """
    browser.get(url)
    error = browser.execute_async_script(
        "const done = arguments[0];"
        "import('./app.js').then((page) => page.app).then(() => done(null), (error) => done(String(error)));")
    if error:
        raise RuntimeError(f'the page does not load: {error}')
