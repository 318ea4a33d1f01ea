"""Fixtures for everybody: a real daemon, and factories of them, on state directories of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon

pytest_plugins = ["tests.messages_api.fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first, so that of processes side by side none is alone with one in the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.get_closest_marker("torture") is None, -slow[item.path]))


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons (not started); whatever of them is alive at the end is killed, their tasks' processes with them."""
    made: list[Daemon] = []

    def make(config: str = "", **more: Any) -> Daemon:
        daemon = Daemon(tmp_path / f"state{len(made)}", config, **more)
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        if daemon.process is not None:
            _end_all(daemon)


def _end_all(daemon: Daemon) -> None:
    """A daemon that stops with `children = "stop"` ends what an earlier one left."""
    assert daemon.process is not None
    daemon.kill()
    daemon.env |= {"ORCHESTR8D_EXECUTOR__CHILDREN": "stop", "ORCHESTR8D_EXECUTOR__GRACE": "0.2"}
    try:
        daemon.start()
        daemon.stop()
    except AssertionError:
        # It cannot start on what the test left; there is nothing to adopt then.
        daemon.kill()


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A running daemon with its defaults."""
    return make_daemon().start()
