"""Debian's Chromium, headless, for tests of HTML pages."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
)


class Browser:
    """One page at a time, with what tests ask of it; ``driver`` is Selenium's."""

    def __init__(self, driver: Any):
        self.driver = driver

    def open(self, path: Path, *, width: int = 1280, scheme: str = 'light') -> None:
        """Show a file in a window ``width`` pixels wide, for a reader who prefers ``scheme``, light or dark."""
        self.driver.get_log('browser')
        size = {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': False}
        self.driver.execute_cdp_cmd('Performance.enable', {})
        self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
        feature = {'name': 'prefers-color-scheme', 'value': scheme}
        self.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [feature]})
        self.driver.get(path.resolve().as_uri())

    def run(self, script: str) -> Any:
        """What JavaScript returns."""
        return self.driver.execute_script(script)

    def count(self, selector: str) -> int:
        """Elements that are shown."""
        script = f'return [...document.querySelectorAll({selector!r})].filter(e => e.getClientRects().length).length'
        return int(self.run(script))

    def find(self, selector: str) -> Any:
        """Selenium's first element."""
        return self.driver.find_element('css selector', selector)

    def press(self, *keys: str) -> None:
        """Keys of ``selenium.webdriver.Keys``, or characters, one after another."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def console(self) -> list[str]:
        """What the page wrote to the console, errors included, since it was opened."""
        return [entry['message'] for entry in self.driver.get_log('browser')]

    def seconds(self, script: str) -> float:
        """Processor time that JavaScript and the drawing after it take, however busy the machine is."""
        spent = []
        for act in ('', script):
            self.run(act)
            self.run('return document.body.offsetHeight')  # what has changed is laid out
            metrics = self.driver.execute_cdp_cmd('Performance.getMetrics', {})['metrics']
            spent.append(next(metric['value'] for metric in metrics if metric['name'] == 'ThreadTime'))
        return float(spent[1] - spent[0])

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        height = min(self.run('return document.documentElement.scrollHeight'), 16000)
        width = self.run('return innerWidth')
        size = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': False}
        self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
        self.driver.save_screenshot(str(path))

    def check(self, path: Path) -> None:
        """What holds for every page: no message on the console, no sideways scrolling, and it is below 10 MB."""
        assert path.stat().st_size < 10_000_000
        for width in (1280, 390):
            for scheme in ('light', 'dark'):
                self.open(path, width=width, scheme=scheme)
                assert self.console() == []
                assert self.run('return document.documentElement.scrollWidth') <= width


@pytest.fixture(scope='session')
def _chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    selenium = pytest.importorskip('selenium.webdriver', reason='the package selenium is not installed')
    paths = {name: shutil.which(name) for name in ('chromium', 'chromedriver')}
    if missing := [name for name, path in paths.items() if path is None]:
        pytest.skip(f'no {" and no ".join(missing)}: apt-get install chromium chromium-driver')
    options = selenium.ChromeOptions()
    options.binary_location = paths['chromium']
    for flag in (*FLAGS, f'--user-data-dir={tmp_path_factory.mktemp("chromium")}'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(paths['chromedriver']))
    yield driver
    driver.quit()


@pytest.fixture
def browser(_chromium: Any) -> Browser:
    """Chromium; the test is skipped where it is not installed."""
    return Browser(_chromium)
