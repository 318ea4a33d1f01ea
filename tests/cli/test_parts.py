"""The pure parts of the client and the command line."""

from __future__ import annotations

import json
from functools import partial

import click
import pytest

from orchestr8d.cli.common import parse_options
from orchestr8d.cli.output import printable, span, what
from orchestr8d.cli.task_options import environment
from orchestr8d.client import NoDaemon
from orchestr8d.client.answers import ApiError, read
from orchestr8d.client.requests import events, logs, status, submit, task, tasks
from orchestr8d.client.streams import PATIENCE, Events, Logs, Waiting
from orchestr8d.clock import FakeClock


@pytest.mark.parametrize(
    ("pairs", "options"),
    [
        (["timeout=90"], {"timeout": 90}),
        (["timeout=90s"], {"timeout": "90s"}),
        (["allow_failed=true"], {"allow_failed": True}),
        (["title=12"], {"title": "12"}),
        (["title=null"], {"title": None}),
        (["title="], {"title": ""}),
        (["title=a=b"], {"title": "a=b"}),
        (["tags=a", "tags=2"], {"tags": ["a", "2"]}),
        (['tags=["a","b"]', "tags=c"], {"tags": ["a", "b", "c"]}),
        (["check=make 'a b'"], {"check": ["make", "a b"]}),
        (["check=null"], {"check": None}),
        (["metadata.pr=12", "metadata.by.name=me"], {"metadata": {"pr": 12, "by": {"name": "me"}}}),
        (['retry_backoff={"kind": "fixed"}', "retry_backoff.base=2"], {"retry_backoff": {"kind": "fixed", "base": 2}}),
    ],
)
def test_options_of_the_command_line(pairs: list[str], options: dict[str, object]) -> None:
    assert parse_options(pairs) == options


@pytest.mark.parametrize(
    "pair",
    [
        "timeout",
        "=1",
        "",
        'check="',
    ],
)
def test_options_that_are_none(pair: str) -> None:
    with pytest.raises(click.UsageError):
        parse_options([pair])


def test_the_environment_that_is_sent() -> None:
    caller = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "LANG": "C",
        "XDG_DATA_HOME": "/d",
        "AWS_KEY": "no",
        "LC": "no",
        "BAD": "\udcff",
    }
    sent = {"PATH": "/bin", "LC_ALL": "C", "LANG": "C", "XDG_DATA_HOME": "/d"}
    assert environment(caller, [], clean=False) == sent
    assert environment(caller, ["A=", "AWS_KEY"], clean=True) == {"A": "", "AWS_KEY": "no"}


def test_spans() -> None:
    spans = [
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (59.9, "59s"),
        (61, "1m01s"),
        (7261, "2h01m"),
        (90000, "1d1h"),
        (-3, "0.0s"),
    ]
    assert [span(seconds) for seconds, _ in spans] == [text for _, text in spans]


def test_what_a_task_is_called() -> None:
    assert what({"command": ["echo", "a b"]}) == "echo 'a b'"
    assert what({"title": "t", "command": ["x"]}) == "t"
    assert printable("a\tb\x07\u202e") == "a\\tb\\x07\\u202e"


def test_requests_are_data() -> None:
    assert task("../x?y").target == "/api/v1/tasks/..%2Fx%3Fy"
    assert tasks(5, tag=["a", "b"], status=["failed", "cancelled"]).target == (
        "/api/v1/tasks?status=failed%2Ccancelled&tag=a&tag=b&limit=5"
    )
    made = submit({"command": ["true"], "cwd": None}, "key")
    assert (made.method, json.loads(made.body or b"")) == ("POST", {"command": ["true"]})
    assert made.repeatable
    assert ("Idempotency-Key", "key") in made.headers


def test_answers_become_errors() -> None:
    problem = json.dumps({"type": "urn:orchestr8d:unavailable", "title": "x", "detail": "draining"}).encode()
    with pytest.raises(ApiError) as caught:
        read(503, {"Retry-After": "5"}, problem)
    assert (caught.value.type, caught.value.detail, caught.value.retry_after) == ("unavailable", "draining", 5)
    with pytest.raises(ApiError, match="Bad Gateway"):
        read(502, {}, b"Bad Gateway\n<html>")
    with pytest.raises(ApiError, match="not JSON"):
        read(200, {}, b"<html>")
    assert read(200, {}, b"") == {}


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_events_in_pieces_of_any_size(size: int) -> None:
    stream = (
        b': here\n\nid: 4\nevent: task.created\ndata: {"id":4,"type":"task.created","data":{}}\n\n'
        b'id: 6\nevent: gap\ndata: {"oldest":\ndata: 7}\n\n: still here\n\nid: 7\nevent'
    )
    source = Events(events(type=["task.*"], after=3), 0, FakeClock())
    source.opened()
    seen = [e for i in range(0, len(stream), size) for e in source.feed(stream[i : i + size])]
    assert seen == [{"id": 4, "type": "task.created", "data": {}}, {"type": "gap", "data": {"oldest": 7}}]
    again = source.request()
    assert ("Last-Event-ID", "6") in again.headers
    assert again.target == "/api/v1/events?type=task.%2A"


def test_a_log_goes_on_at_the_byte_where_it_broke() -> None:
    clock = FakeClock()
    source = Logs(logs("x", True, stream="stdout", attempt=2, offset=5), 0, clock)
    source.opened()
    source.feed(b"1234")
    source.lost(NoDaemon("away"))
    request = source.request()
    assert request is not None
    assert dict(request.query) == {"stream": "stdout", "attempt": "2", "follow": "1", "offset": "9"}
    clock.advance(PATIENCE)
    with pytest.raises(NoDaemon):
        source.lost(NoDaemon("away"))
    assert source.ended() == 0
    assert source.request() is None


def test_a_wait_does_not_ask_without_a_pause_when_it_is_not_let_wait() -> None:
    clock = FakeClock()
    waiting = Waiting(partial(status, "x"), 10, clock)
    waiting.request()
    waiting.take({"status": "running"})
    assert waiting.delay() == 0
    asked = waiting.request()
    assert asked is not None and dict(asked.query) == {"wait": "10.000", "until": "final"}
    waiting.take({"status": "running"})
    assert waiting.delay() > 0
    clock.advance(10)
    assert waiting.request() is None
    assert not waiting.final
