"""A fuzz of every route from the OpenAPI document: no 5xx, and no answer that the document does not know."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from orchestr8d.status_api.app import table
from orchestr8d.status_api.openapi import document
from orchestr8d.status_api.route import ANY, Nothing, Route
from tests.status_api.conftest import Api, running

ROUTES = table("0")
# More of them by hand: FUZZ_EXAMPLES=1000 pytest tests/status_api/test_fuzz.py
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
SCHEMA = schemathesis.openapi.from_dict(document(ROUTES, "0"))
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    response_headers_conformance, unsupported_method,
]  # fmt: skip


class Server:
    """The API in a thread of its own, with tasks in many states. Nothing is executed: its pool is the stand-in."""

    def __init__(self) -> None:
        self.api: Api
        self.ids: list[str] = []
        self.workflows: list[str] = []
        self.schedules: list[str] = []
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Event
        self._thread = threading.Thread(target=lambda state: asyncio.run(self._run(state)))

    def start(self, state) -> None:
        self._thread = threading.Thread(target=asyncio.run, args=[self._run(state)])
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    async def _run(self, state) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with running(state) as self.api:
            await self._seed()
            self.api.services.waits.end()  # so that streams end, and nobody waits
            self._ready.set()
            await self._end.wait()

    async def _seed(self) -> None:
        api = self.api
        done, attempt = await api.run(stdout=b"output\n")
        await api.complete(done, attempt)
        failed, attempt = await api.run(stdout=b"output\n")
        await api.fail(failed, attempt)
        busy, _ = await api.run(stdout=b"output\n")
        waiting = await api.submit(delay="1d", metadata={"a": [1]}, tags=["t"])
        self.ids = [done, failed, busy, waiting, await api.submit(), "nope"]
        self.workflows = [await self._workflow(start) for start in (True, False, True)] + ["nope"]
        await api.call("POST", f"/api/v1/workflows/{self.workflows[2]}/cancel")
        for name, active in (("held", False), ("yearly", True), ("spare", True)):
            body = {"name": name, "schedule": "@yearly", "task": {"command": ["true"]}, "active": active}
            status, _ = await api.call("POST", "/api/v1/schedules", body)
            assert status == 201
        self.schedules = ["held", "yearly", "nope"]

    async def _workflow(self, start: bool) -> str:
        tasks = [{"id": "t", "command": ["true"]}, {"id": "ask", "approval": "?"}]
        body = {"definition": {"name": "w", "phases": [{"id": "p", "tasks": tasks}]}, "start": start}
        status, answer = await self.api.call("POST", "/api/v1/workflows", body)
        assert status == 202, answer
        return answer["workflow_id"]

    def those_of(self, route: Route) -> list[str]:
        if "/schedules/" in route.path:
            return ["spare"] if route.method == "DELETE" else self.schedules
        return self.workflows if "/workflows/" in route.path else self.ids


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server()
    server.start(tmp_path_factory.mktemp("fuzz") / "state")
    yield server
    server.stop()


def _takes_something(route: Route) -> bool:
    return route.writes or route.query is not Nothing or "{" in route.path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("route", "mode"),
    [pytest.param(route, GenerationMode.POSITIVE, id=f"{route.method} {route.path} valid") for route in ROUTES]
    + [
        pytest.param(route, GenerationMode.NEGATIVE, id=f"{route.method} {route.path} invalid")
        for route in ROUTES
        if _takes_something(route)
    ],
)
def test_no_input_is_answered_in_an_unknown_way(server: Server, route: Route, mode: GenerationMode) -> None:
    takes_something = _takes_something(route)
    # Where there is nothing but an id to get wrong, little is enough.
    takes_much = route.query is not Nothing or (route.writes and route.body is not Nothing)
    operation = SCHEMA[route.template][route.method]
    calls = 0

    @settings(
        max_examples=EXAMPLES if takes_much else 8 if takes_something else 3,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def fuzz(case: schemathesis.Case) -> None:
        nonlocal calls
        calls += 1
        if "id" in case.path_parameters and calls % 4:  # mostly what exists
            there = server.those_of(route)
            case.path_parameters["id"] = there[calls % len(there)]
        try:
            response = case.call(base_url=server.api.url, headers=server.api.auth, timeout=10)
        except requests.exceptions.ChunkedEncodingError:  # a log that is followed is broken off
            assert route.path.endswith("/logs")
            return
        case.validate_response(response, checks=CHECKS, headers=server.api.auth)

    fuzz()


@pytest.mark.slow
@pytest.mark.parametrize(
    "route", [pytest.param(route, id=f"{route.method} {route.path}") for route in ROUTES if route.writes]
)
def test_no_bytes_are_answered_in_an_unknown_way(server: Server, route: Route) -> None:
    """What is no JSON, or JSON of another shape, as a body."""
    there = server.those_of(route)[0 if "/schedules/" in route.path else 1 if "/workflows/" in route.path else 3]
    path = route.template.replace("{id}", there).replace("{name}", "q").replace("{task}", "t")
    deep = b"[" * 100_000
    for body in (b"", b"{", b"null", b"[]", b"0", b'"x"', b"{} {}", b"\xff\xfe", b'{"\xff": 1}', b'{"a": "\\ud800"}',
                 deep, b'{"a": 1e999}', b"{" * 100, b'{"a":' * 5000 + b"1" + b"}" * 5000):  # fmt: skip
        response = requests.request(
            route.method, server.api.url + path, data=body, timeout=10,
            headers={**server.api.auth, "Content-Type": "application/json"},
        )  # fmt: skip
        expected = {400, 403} if body or route.body_required else {200, 202, 204, 400, 403, 404, 409}
        if route.body is ANY:  # takes any JSON
            expected = {200, 400}
        assert response.status_code in expected, (body[:50], response.text)
