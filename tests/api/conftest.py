"""A console for each test of the API."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.console import Console, console_config, running_console


@pytest.fixture
def console(tmp_path: Path, redis_url: str) -> Iterator[Console]:
    with running_console(console_config(tmp_path, redis_url)) as running:
        yield running
