"""A store of each backend, on a clock that tests move by hand. A second backend is one more entry of BACKENDS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.events import Bus
from orchestr8d.store import Store
from orchestr8d.store.sqlite import open_store
from orchestr8d.store.types import Limits
from tests.store.helpers import Hand, check

# No test may depend on how full the machine's disk is.
LIMITS = Limits(min_free_disk=0)
# Opens the store that is called `name` in a directory: the same one again when it was there before.
Open = Callable[[Path, str, FakeClock, Bus, Limits], Awaitable[Store]]
Make = Callable[..., Awaitable[Store]]


async def _sqlite(directory: Path, name: str, clock: FakeClock, bus: Bus, limits: Limits) -> Store:
    return await open_store(directory / f"{name}.db", clock=clock, bus=bus, limits=limits, synchronous="OFF")


BACKENDS: dict[str, Open] = {"sqlite": _sqlite}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture(params=sorted(BACKENDS))
async def make_store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock, bus: Bus
) -> AsyncIterator[Make]:
    """Opens stores by name; all are closed at the end."""
    opened: list[Store] = []

    async def make(name: str = "store", limits: Limits = LIMITS) -> Store:
        opened.append(await BACKENDS[request.param](tmp_path, name, clock, bus, limits))
        return opened[-1]

    yield make
    for store in opened:
        await store.close()


@pytest.fixture
async def store(make_store: Make) -> AsyncIterator[Store]:
    """An empty store; whatever a test does to it, what holds always is checked at the end."""
    made = await make_store()
    yield made
    await check(made)


@pytest.fixture
def hand(store: Store, clock: FakeClock) -> Hand:
    return Hand(store, clock)
