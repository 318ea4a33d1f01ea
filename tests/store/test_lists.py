"""Lists of tasks: filters, pages that stay put, and the search for words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.store import Store
from orchestr8d.store.types import TaskFilter
from tests.store.helpers import Hand, new
from tests.store.test_steering import to


async def listed(store: Store, limit: int = 100, before: int | None = None, **wanted: Any) -> list[str]:
    """The programs of the tasks in a list."""
    views = await store.views(TaskFilter(**wanted), limit, before)
    return [view.task.read_spec().command[0] for view in views]  # type: ignore[index]


async def found(store: Store, q: str) -> list[int]:
    return [view.task.seq for view in await store.views(TaskFilter(q=q), 100, None)]


async def test_newest_first(hand: Hand, store: Store) -> None:
    assert await listed(store) == []
    await hand.add_all(*[new(str(i)) for i in range(5)])
    assert await listed(store) == ["4", "3", "2", "1", "0"]
    assert await listed(store, limit=2) == ["4", "3"]


async def test_filters(hand: Hand, store: Store, clock: FakeClock) -> None:
    await hand.add("a", queue="q", user_id="ann", tags=["x", "y"])
    await hand.add("b", queue="q", tags=["x"])
    await hand.add("c", user_id="ann", tags=["y"])
    last = await hand.add("d", delay=60.0)
    assert await listed(store, queue="q") == ["b", "a"]
    assert await listed(store, queue="default") == ["d", "c"]
    assert await listed(store, user_id="ann") == ["c", "a"]
    assert await listed(store, user_id="local", queue="q") == ["b"]
    assert await listed(store, tags=["x"]) == ["b", "a"]
    assert await listed(store, tags=["x", "y"]) == ["a"]
    assert await listed(store, tags=["y", "y"], user_id="ann") == ["c", "a"]
    assert await listed(store, tags=["z"]) == []
    assert await listed(store, status=["pending"]) == ["d"]
    assert await listed(store, status=["pending", "queued"]) == ["d", "c", "b", "a"]
    assert await listed(store, status=["queued", "queued"], queue="q") == ["b", "a"]
    assert await listed(store, status=["failed"]) == []
    assert await listed(store, agent="a") == []
    assert await listed(store, workflow_id="w") == []
    assert await listed(store, schedule_id="s") == []
    assert await listed(store, tail=last.id[-8:]) == ["d"]
    assert await listed(store, tail="zzzzzz") == []


@pytest.mark.parametrize(
    "wanted",
    [TaskFilter(), TaskFilter(status=("queued", "cancelled")), TaskFilter(tags=("t",)), TaskFilter(q="word")],
    ids=["all", "status", "tag", "words"],
)
async def test_pages_stay_put_while_rows_come_and_go(hand: Hand, store: Store, wanted: TaskFilter) -> None:
    tasks = await hand.add_all(*[new("word", tags=["t"]) for _ in range(30)])
    seen: list[str] = []
    before = None
    while page := await store.views(wanted, 7, before):
        seen += [view.task.id for view in page]
        before = page[-1].task.seq
        # What is new is before the first page; what was shown changes, and the last one shown goes away.
        await hand.add("word", tags=["t"])
        for view in page[-2:]:
            await store.cancel(view.task.id)
        await store.remove([page[-1].task.id])
    assert seen == [task.id for task in reversed(tasks)]


async def test_a_task_that_moves_is_in_a_list_once(hand: Hand, store: Store) -> None:
    """A list of several states is of one moment: what goes from one to the other meanwhile is there, and once."""
    await hand.add_all(*[new(str(i)) for i in range(200)])
    moving = asyncio.create_task(_move_all(hand))
    while not moving.done():
        shown = await listed(store, 1000, status=["running", "queued"])
        assert sorted(shown) == sorted(str(i) for i in range(200))
        shown = await listed(store, 1000, status=["queued", "running"])
        assert len(shown) == 200
    await moving


async def _move_all(hand: Hand) -> None:
    while await hand.claim(1):
        pass


# -- search


async def test_words_of_command_and_title(hand: Hand, store: Store) -> None:
    await hand.add("make", "-j4", "integration-tests", title="Nightly run")
    await hand.add("echo", "nightly", title="Something else")
    await hand.add("true")
    assert await found(store, "make") == [1]
    assert await found(store, "MAKE") == [1]
    assert await found(store, "nightly") == [2, 1]
    assert await found(store, "nightly run") == [1]
    assert await found(store, "run nightly") == [1]
    assert await found(store, "integration-tests") == [1]
    assert await found(store, "tests") == [1]
    assert await found(store, "make nightly else") == []
    assert await found(store, "absent") == []


async def test_the_last_word_may_be_a_beginning(hand: Hand, store: Store) -> None:
    await hand.add("integration", "nightly")
    assert await found(store, "inte") == [1]
    assert await found(store, "integration night") == [1]
    assert await found(store, "inte nightly") == []


@pytest.mark.parametrize(
    "q",
    ["", " ", '"', '""', "'", "*", "-", "--", "(", ")", "a AND", "OR", "NOT x", "NEAR(a b)", "title:x", "^a", "{a}: b",
     "a*b", "+", "\0", "a\0b", "%", "_", ";--", "é", "日本語", "😀", "\ud800", "\\", "a" * 10_000, "a " * 3_000, "\n\t",
     "task_text MATCH 'x'", "rowid:1", "-title:x", "\u202e"],
    ids=ascii,
)  # fmt: skip
async def test_no_search_is_an_error(hand: Hand, store: Store, q: str) -> None:
    await hand.add("some", "words")
    assert await found(store, q) == []


async def test_words_in_other_scripts(hand: Hand, store: Store) -> None:
    await hand.add("déployer", "Grüße", "日本語")
    assert await found(store, "grüße") == [1]
    assert await found(store, "deployer") == [1]
    assert await found(store, "日本") == [1]


async def test_an_edit_is_found_by_its_new_words_only(hand: Hand, store: Store) -> None:
    early = await hand.add("oldword", title="oldtitle")
    assert await found(store, "oldword") == [1]
    for task, indexed in ((early, True), (await hand.add("oldword", title="oldtitle"), False)):
        await store.edit(task.id, to(command=["newword"], title="newtitle"))
        assert task.seq in await found(store, "newword"), indexed
        assert task.seq in await found(store, "newtitle"), indexed
        assert task.seq not in await found(store, "oldword"), indexed
        assert task.seq not in await found(store, "oldtitle"), indexed
    await store.edit(early.id, to(priority=3))
    assert await found(store, "newword") == [2, 1]


async def test_an_edit_of_tags_is_found(hand: Hand, store: Store) -> None:
    task = await hand.add("a", tags=["x", "y"])
    await store.edit(task.id, to(tags=["y", "z", "z"]))
    assert [await listed(store, tags=[tag]) for tag in "xyz"] == [[], ["a"], ["a"]]


async def test_what_was_removed_is_not_found(hand: Hand, store: Store) -> None:
    tasks = [await hand.finished("word", str(i)) for i in range(3)]
    assert await found(store, "word") == [3, 2, 1]
    tasks.append(await hand.finished("word", "3"))
    await store.remove([tasks[1].id, tasks[3].id])
    assert await found(store, "word") == [3, 1]
    assert await found(store, "2") == [3]
    await hand.add("word")
    assert await found(store, "word") == [5, 3, 1]


async def test_a_search_with_filters_and_pages(hand: Hand, store: Store) -> None:
    await hand.add_all(*[new("word", str(i), queue="ab"[i % 2], tags=["t"] if i < 4 else []) for i in range(10)])
    assert await found(store, "word") == list(range(10, 0, -1))
    views = await store.views(TaskFilter(q="word", queue="a", tags=("t",), status=("queued",)), 10, None)
    assert [view.task.seq for view in views] == [3, 1]
    assert [view.task.seq for view in await store.views(TaskFilter(q="word"), 3, 6)] == [5, 4, 3]


async def test_the_index_is_filled_in_steps(hand: Hand, store: Store) -> None:
    await hand.add_all(*[new("word") for _ in range(1200)])
    steps = 0
    while await store.index_text():
        steps += 1
    assert steps >= 2
    assert not await store.index_text()
    assert len(await store.views(TaskFilter(q="word"), 10_000, None)) == 1200
