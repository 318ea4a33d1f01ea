"""The gate, walked over every registered route: Host, Origin, token, scope, content type, size, in that order."""

import asyncio
import json
import os
import re
import struct

import aiohttp
import msgspec
import pytest

from orchestr8d import config_sections
from orchestr8d.core.errors import Problem
from orchestr8d.status_api.app import table
from orchestr8d.status_api.peers import Peers

ROUTES = table("0")
GUARDED = [route for route in ROUTES if route.scope is not None]
LEVEL = {"read": 0, "submit": 1, "admin": 2}


def path_of(route, task_id="01900000-0000-7000-8000-000000000009"):
    return re.sub(r"\{(?:id|name|path|task)\}", task_id, route.template)


async def ask(api, route, *, expect=None, headers=None, query="", **more):
    """The status of one request to a route; a stream is left as soon as its head is there."""
    url = api.url + path_of(route, more.pop("task_id", "01900000-0000-7000-8000-000000000009")) + query
    async with api.http.request(route.method, url, headers=headers or {}, **more) as response:
        if response.status >= 400:
            assert response.content_type == "application/problem+json", (route.method, route.path)
            problem = json.loads(await response.read())
            assert problem["status"] == response.status
            assert problem["type"].startswith("urn:orchestr8d:")
            assert {"title", "detail"} <= problem.keys()
        if response.status == 401:
            assert response.headers["WWW-Authenticate"] == "Bearer"
        return response.status


async def raw(api, data: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1]), answer


async def test_no_route_answers_without_a_token(api):
    for route in GUARDED:
        assert await ask(api, route) == 401, route
        assert await ask(api, route, headers={"Authorization": "Bearer wrong"}) == 401, route
        assert await ask(api, route, headers={"Authorization": "Basic eDp5"}) == 401, route
        assert await ask(api, route, query=f"?token={api.token}&access_token={api.token}") == 401, route
    for method, path in (("GET", "/nowhere"), ("DELETE", "/api/v1/tasks"), ("OPTIONS", "/api/v1/tasks"), ("GET", "/")):
        async with api.http.request(method, api.url + path) as response:
            assert response.status == 401, path
        async with api.http.request(method, api.url + path, headers=api.auth) as response:
            assert response.status == (404 if method == "GET" else 405), path
            assert response.content_type == "application/problem+json"
            if response.status == 405:
                assert response.headers["Allow"] == "GET, POST"


async def test_every_route_refuses_foreign_hosts_and_origins(api):
    for route in GUARDED:
        assert await ask(api, route, headers={**api.auth, "Host": "evil.example"}) == 403, route
        assert await ask(api, route, headers={"Host": "evil.example"}) == 403, route
        assert await ask(api, route, headers={**api.auth, "Origin": "http://evil.example"}) == 403, route
        assert await ask(api, route, headers={**api.auth, "Origin": "null"}) == 403, route
    [healthz] = [route for route in ROUTES if route.path == "/healthz"]
    assert await ask(api, healthz, headers={"Host": "evil.example"}) == 200
    assert await ask(api, healthz, headers={"Origin": "http://evil.example"}) == 403
    both = {"Origin": "http://evil.example", "Host": "evil.example"}
    assert await ask(api, healthz, headers=both) == 403


async def test_hosts_and_origins_that_are_ours(serve):
    server = config_sections.Server(
        hosts=["box.lan"], origins=["https://dash.example"], base_url="https://tasks.example/", listen="10.1.2.3:8787"
    )
    api = await serve(server=server)
    [readyz] = [route for route in ROUTES if route.path == "/readyz"]

    async def get(**headers):
        return await ask(api, readyz, headers={**api.auth, **headers})

    for host in ("localhost", "localhost:99", "127.0.0.1", "127.8.8.8:1", "[::1]:8787", "box.lan", "BOX.lan:8787",
                 "tasks.example", "10.1.2.3:8787", "a.localhost"):  # fmt: skip
        assert await get(Host=host) == 200, host
    for host in ("10.1.2.4", "box.lan.evil", "evil@localhost", "localhost/x", "localhost:x", "", "[::1", "::1",
                 "127.0.0.1.nip.io", "localhost evil"):  # fmt: skip
        assert await get(Host=host) == 403, host
    for origin in (api.url, "https://dash.example", "https://tasks.example"):
        assert await get(Origin=origin) == 200, origin
    for origin in (f"http://localhost:{api.port}", "http://127.0.0.1:1", "https://dash.example.evil", "file://", ""):
        assert await get(Origin=origin) == 403, origin
    assert await get(Host="localhost:5", Origin="http://localhost:5") == 200


async def test_a_missing_host_is_refused_and_never_invented(api):
    status, _ = await raw(api, b"GET /readyz HTTP/1.0\r\nAuthorization: Bearer %b\r\n\r\n" % api.token.encode())
    assert status == 403
    status, _ = await raw(api, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert status == 200


async def test_every_route_asks_for_its_scope(api):
    tokens = {scope: await api.make_token(scope=scope) for scope in LEVEL}
    for route in GUARDED:
        for scope, level in LEVEL.items():
            headers = {"Authorization": f"Bearer {tokens[scope]}"}
            status = await ask(api, route, headers=headers)
            refused = level < LEVEL[route.scope] or route.path.endswith("/progress")
            if refused:
                assert status in ((403,) if level < LEVEL[route.scope] else (400, 403)), (route, scope)
            else:
                assert status not in (401, 403), (route, scope)
        steered = ("/hooks/", "/api/v1/notifications", "/api/v1/workflows", "/api/v1/schedules")
        open_to_submit = "/tasks" in route.path or route.path.startswith(steered)
        expected = "submit" if open_to_submit else "admin"
        if route.method == "GET":
            expected = "admin" if route.path == "/api/v1/tokens" else "read"
        assert route.scope == expected, route


async def test_every_write_takes_json_only(api):
    for route in GUARDED:
        if not route.writes:
            continue
        assert await ask(api, route, headers=api.auth, data={"command": "x"}) == 415, route
        for declared in ("text/plain", "application/jsonx", "multipart/form-data", ""):
            headers = {**api.auth, "Content-Type": declared}
            assert await ask(api, route, headers=headers, data=b'{"command": ["x"]}') == 415, route
        encoded = {**api.auth, "Content-Type": "application/json", "Content-Encoding": "gzip"}
        async with aiohttp.ClientSession() as http:
            url = api.url + path_of(route)
            async with http.request(route.method, url, headers=encoded, data=b"{}") as response:
                assert response.status in (400, 415), route
        if route.body_required:
            assert await ask(api, route, headers=api.auth) == 400, route
        else:
            assert await ask(api, route, headers=api.auth) != 415, route
        takes_any = {"/hooks/claude-code": 200, "/api/v1/workflows/{id}/signals/{name}": 404}
        status = await ask(api, route, headers=api.auth, json={"no_such_field": 1})
        assert status == takes_any.get(route.path, 400), route
    for route in GUARDED:
        if route.path != "/api/v1/events":
            assert await ask(api, route, headers=api.auth, query="?no_such=1") == 400, route


@pytest.mark.slow
async def test_gate_order(api):
    read = {"Authorization": f"Bearer {await api.make_token(scope='read')}"}
    huge = b"x" * (api.config.server.max_body + 1)

    async def post(path, headers, data):
        async with api.http.post(api.url + path, headers=headers, data=data) as response:
            return response.status

    json_type = {"Content-Type": "application/json"}
    assert await post("/nowhere", {"Host": "evil.example"}, huge) == 403
    assert await post("/nowhere", {}, huge) == 401
    assert await post("/nowhere", read, huge) == 404
    assert await post("/api/v1/tasks", read, huge) == 403
    assert await post("/api/v1/tasks", api.auth, huge) == 415
    assert await post("/api/v1/tasks", {**api.auth, **json_type}, huge) == 413
    assert await post("/api/v1/tasks/nope/priority", {**api.auth, **json_type}, b"{}") == 400
    assert await post("/api/v1/tasks/nope/priority", {**api.auth, **json_type}, b'{"priority": 1}') == 404


async def test_tokens_of_attempts(api):
    task_id, attempt_id = await api.run()
    other = await api.submit()
    headers = {"Authorization": f"Bearer {api.services.tokens.attempt_token(attempt_id)}"}
    for route in GUARDED:
        status = await ask(api, route, headers=headers, task_id=task_id)
        own = route.method == "GET" and ("/tasks/{id}" in route.path or route.path == "/status/{id}")
        if route.writes and route.inside not in ("no", "workflow"):
            assert status == 400, route  # no body
        else:
            assert status == (403 if not own else status), route
            assert not own or status in (200, 404, 409), route
        if "{id}" in route.path:
            assert await ask(api, route, headers=headers, task_id=other) == 403, route
    status, answer = await api.call(
        "POST", f"/api/v1/tasks/{task_id}/progress", {"percent": 40, "current_step": "half"}, headers=headers
    )
    assert (status, answer["progress"]["percent"], answer["progress"]["current_step"]) == (200, 40, "half")
    status, _ = await api.call("POST", f"/api/v1/tasks/{task_id}/progress", {"percent": 101}, headers=headers)
    assert status == 400
    assert (await api.call("POST", f"/api/v1/tasks/{task_id}/progress", {"percent": 1}))[0] == 403
    await api.complete(task_id, attempt_id)
    assert (await api.call("GET", f"/api/v1/tasks/{task_id}", headers=headers))[0] == 401
    forged = api.services.tokens.attempt_token(attempt_id)[:-2] + "xx"
    assert (await api.call("GET", f"/api/v1/tasks/{task_id}", headers={"Authorization": f"Bearer {forged}"}))[0] == 401


async def test_tokens_that_are_bound(api):
    token = await api.make_token(scope="submit", user_id="ann", runners=["command"])
    headers = {"Authorization": f"Bearer {token}"}
    status, answer = await api.call("POST", "/api/v1/tasks", {"command": ["a"]}, headers=headers)
    assert status == 202
    _, task = await api.call("GET", f"/api/v1/tasks/{answer['task_id']}")
    assert task["user_id"] == "ann"
    body = {"command": ["a"], "options": {"user_id": "bob"}}
    assert (await api.call("POST", "/api/v1/tasks", body, headers=headers))[0] == 403
    other = {"Authorization": f"Bearer {await api.make_token(scope='submit', runners=['claude'])}"}
    assert (await api.call("POST", "/api/v1/tasks", {"command": ["a"]}, headers=other))[0] == 403


async def test_a_token_for_agents_runs_no_commands(api):
    """Unless it says that it may: a command can be anything."""
    agent = {"agent": "code-reviewer", "prompt": "p"}
    for runners, task, expected in (
        (None, {"command": ["a"]}, 403), (["claude", "command"], {"command": ["a"]}, 202),
        (None, agent, 202), (None, agent | {"agent": "general-purpose"}, 403),
        (None, agent | {"agent": "orchestr8d:code-reviewer"}, 403),
    ):  # fmt: skip
        token = await api.make_token(scope="submit", agents=["code-reviewer"], runners=runners)
        headers = {"Authorization": f"Bearer {token}"}
        assert (await api.call("POST", "/api/v1/tasks", task, headers=headers))[0] == expected, (runners, task)


async def test_a_bound_token_steers_its_own_tasks_only(api):
    ann = await api.make_token(scope="submit", user_id="ann")
    other_kind = await api.make_token(scope="submit", runners=["claude"])
    theirs, own = await api.submit(), await api.submit(user_id="ann")
    calls = [
        ("POST", "/priority", {"priority": 1}), ("PATCH", "", {"options": {"title": "t"}}), ("POST", "/pause", None),
        ("POST", "/resume", None), ("POST", "/cancel", None), ("POST", "/retry", None),
    ]  # fmt: skip
    for method, path, body in calls:
        for token, task_id in ((ann, theirs), (other_kind, theirs), (other_kind, own), (ann, own)):
            headers = {"Authorization": f"Bearer {token}"}
            status, _ = await api.call(method, f"/api/v1/tasks/{task_id}{path}", body, headers=headers)
            allowed = (token, task_id) == (ann, own)
            assert status == (202 if path == "/retry" else 200) if allowed else status == 403, path
    assert (await api.call("GET", f"/api/v1/tasks/{theirs}"))[1]["status"] == "queued"


async def test_progress_that_is_not_said_stays(api):
    task_id, attempt_id = await api.run()
    headers = {"Authorization": f"Bearer {api.services.tokens.attempt_token(attempt_id)}"}
    for said, expected in (
        ({"percent": 40}, (40, None)), ({"current_step": "half"}, (40, "half")), ({"percent": 0}, (0, "half"))
    ):  # fmt: skip
        _, answer = await api.call("POST", f"/api/v1/tasks/{task_id}/progress", said, headers=headers)
        assert (answer["progress"]["percent"], answer["progress"]["current_step"]) == expected


async def test_the_socket_needs_no_token(api):
    connector = aiohttp.UnixConnector(str(api.socket))
    async with aiohttp.ClientSession(connector=connector) as http:

        async def get(path, **headers):
            async with http.get(f"http://anything.example{path}", headers=headers) as response:
                return response.status

        assert await get("/api/v1/tokens") == 200
        assert await get("/api/v1/tokens", Authorization="Bearer wrong") == 401
        assert await get("/api/v1/tokens", Origin="http://evil.example") == 403
        assert await get("/api/v1/tokens", Origin="http://anything.example") == 403
        read = await api.make_token(scope="read")
        assert await get("/api/v1/tokens", Authorization=f"Bearer {read}") == 403


def test_the_socket_is_for_its_owner_only():
    class Peer:
        """A transport whose peer the kernel says is of another user."""

        def get_extra_info(self, name):
            return self

        def getsockopt(self, level, name, size):
            return struct.pack("3i", 1, os.getuid() + 4242, 4242)

    with pytest.raises(Problem) as raised:
        Peers(lambda pid: None).caller(Peer())
    assert raised.value.status == 403


async def test_a_peer_inside_an_attempt_has_its_rights(api):
    task_id, api.inside = await api.run()
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(api.socket))) as http:
        async with http.get(f"http://localhost/api/v1/tasks/{task_id}") as response:
            assert response.status == 200
        async with http.get("http://localhost/api/v1/tasks") as response:
            assert response.status == 403
        body = {"percent": 1}
        async with http.post(f"http://localhost/api/v1/tasks/{task_id}/progress", json=body) as response:
            assert response.status == 200
    api.inside = "?"
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(api.socket))) as http:
        async with http.get(f"http://localhost/api/v1/tasks/{task_id}") as response:
            assert response.status in (401, 403)


async def test_without_auth_everyone_is_admin(serve):
    api = await serve(auth=config_sections.Auth(mode="none"))
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        async with api.http.get(api.url + "/api/v1/tokens", headers=headers) as response:
            assert response.status == 200
    async with api.http.get(api.url + "/api/v1/tokens", headers={"Host": "evil.example"}) as response:
        assert response.status == 403


async def test_revoked_and_expired_tokens(api):
    status, made = await api.call("POST", "/api/v1/tokens", {"name": "x", "scope": "read"})
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert (await api.call("GET", "/readyz", headers=headers))[0] == 200
    status, gone = await api.call("DELETE", f"/api/v1/tokens/{made['token_id']}")
    assert (status, gone["token_id"]) == (200, made["token_id"])
    assert (await api.call("GET", "/readyz", headers=headers))[0] == 401
    assert (await api.call("DELETE", f"/api/v1/tokens/{made['token_id']}"))[0] == 404
    short = await api.make_token(scope="read", expires=0.2)
    await asyncio.sleep(0.3)
    assert (await api.call("GET", "/readyz", headers={"Authorization": f"Bearer {short}"}))[0] == 401


async def test_a_megabyte_passes(api):
    body = {"command": ["cat"], "stdin": "x" * (1 << 20)}
    assert (await api.call("POST", "/api/v1/tasks", body))[0] == 202


async def test_expect_continue_is_answered_when_the_body_is_wanted(api):
    data = b'{"command": ["true"]}'
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(
        b"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %b\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
        % (api.token.encode(), len(data))
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(data)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 202 ")
    writer.close()


async def test_garbage_is_400(api):
    for data in (
        b"GARB\0AGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(data)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 5)
        if answer:
            assert answer.split()[1] == b"400"
            assert b"Content-Type: application/problem+json" in answer
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 400
        writer.close()


async def test_what_nobody_expected_is_a_plain_500(api, capsys):
    async def broken(task_id):
        raise RuntimeError("secret detail")

    api.services.store.view = broken
    status, answer = await api.call("GET", "/api/v1/tasks/x")
    assert (status, answer["type"]) == (500, "urn:orchestr8d:internal")
    assert "secret" not in json.dumps(answer)


async def test_configuration_is_followed(api):
    assert (await api.call("GET", "/readyz", headers={"Host": "new.lan"}))[0] == 403
    server = msgspec.structs.replace(api.config.server, hosts=["new.lan"], max_body=1024)
    api.config = msgspec.structs.replace(api.config, server=server)
    assert (await api.call("GET", "/readyz", headers={"Host": "new.lan"}))[0] == 200
    assert (await api.call("POST", "/api/v1/tasks", {"command": ["a" * 2000]}))[0] == 413
    limits = msgspec.structs.replace(api.config.limits, max_retries=2)
    runners = config_sections.Runners(command=config_sections.CommandConfig(allow=["git", "make*"]))
    api.config = msgspec.structs.replace(api.config, limits=limits, runners=runners)
    status, answer = await api.call("POST", "/api/v1/tasks", {"command": ["sh"], "options": {"max_retries": 3}})
    assert (status, [e["path"] for e in answer["errors"]]) == (400, ["command[0]", "options.max_retries"])
    assert (await api.call("POST", "/api/v1/tasks", {"command": ["sh"]}))[0] == 422
    assert (await api.call("POST", "/api/v1/tasks", {"command": ["make"]}))[0] == 202


async def test_only_allowed_programs_are_run_as_checks_and_again(api):
    task_id = await api.submit("sh")
    checked = await api.submit("make", check=["sh"])
    for one in (task_id, checked):
        await api.call("POST", f"/api/v1/tasks/{one}/cancel")
    waiting = await api.submit("make")
    api.config = msgspec.structs.replace(
        api.config, runners=config_sections.Runners(command=config_sections.CommandConfig(allow=["make"]))
    )
    body = {"command": ["make"], "options": {"check": ["sh"]}}
    check = {"options": {"check": ["sh"]}}
    for method, path, sent, at in (
        ("POST", "", body, "options.check[0]"), ("PATCH", f"/{waiting}", check, "options.check[0]"),
        ("POST", f"/{task_id}/retry", None, "command[0]"), ("POST", f"/{checked}/retry", None, "options.check[0]"),
    ):  # fmt: skip
        status, answer = await api.call(method, f"/api/v1/tasks{path}", sent)
        assert (status, [e["path"] for e in answer["errors"]]) == (422, [at]), (method, path)


def test_files_of_the_keeper_are_private(tmp_path):
    from orchestr8d.clock import FakeClock
    from orchestr8d.tokens import TokenKeeper

    old = os.umask(0)
    try:
        keeper = TokenKeeper(tmp_path, FakeClock())
    finally:
        os.umask(old)
    for name in ("token", "auth-header", "secret"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    token = (tmp_path / "token").read_text().strip()
    assert (tmp_path / "auth-header").read_text() == f"Authorization: Bearer {token}\n"
    assert keeper.authenticate(token).scope == "admin"
    again = TokenKeeper(tmp_path, FakeClock())
    assert again.authenticate(token).scope == "admin"
    assert again.mint("x") == keeper.mint("x") != keeper.mint("y")
    assert again.attempt_token("a") == keeper.attempt_token("a")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe",
        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer o8d_a.\xff.\xff",
        b"GET /readyz HTTP/1.1\r\nHost: local\xffhost\r\nAuthorization: TOKEN",
        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nOrigin: http://\xff[\r\nAuthorization: TOKEN",
        b"GET /readyz HTTP/1.1\r\nHost: [::1\r\nAuthorization: TOKEN",
        b"GET /status/%ff%fe HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
        b"GET /status/\xff\xfe HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
        b"GET /status/%ed%a0%80 HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
        b"GET /api/v1/tasks?q=%ff&tail=%ed%a0%80 HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
        b"GET /api/v1/tasks?%ff=%ff HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
        b"GET /api/v1/tasks?q=\xff\xfe HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
        b"GET /api/v1/tasks?cursor=%ff HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
        b"GET /api/v1/tasks?q=" + b"x" * 7000 + b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
        b'GET /api/v1/tasks?q=%00"*( HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN',
        b"GET /status/x/../../etc HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
        b"GET http://evil.example/readyz HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
        b"GET * HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
        b"CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
        b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nAuthorization: TOKEN",
        b"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nExpect: wonders\r\nAuthorization: TOKEN",
        b"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\nAuthorization: TOKEN",
        b"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"
        b"Authorization: TOKEN",
        b"POST /api/v1/tasks/x/retry HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: \xff\r\nAuthorization: TOKEN",
        b"POST /api/v1/tasks/x/retry HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: a\r\nIdempotency-Key: b\r\n"
        b"Authorization: TOKEN",
        b"PUT /api/v1/queues/%ff HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
        b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: \xc2\xb2\r\nAuthorization: TOKEN",
        b"GET /api/v1/tasks/x/files/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\nAuthorization: TOKEN",
    ],
)
async def test_odd_bytes_are_answered_as_problems(api, head):
    head = head.replace(b"TOKEN", b"Bearer " + api.token.encode())
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(head + b"\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"\r\n\r\n")
        status = int(answer.split()[1])
        assert status < 500, answer
        if status >= 400:
            assert b"Content-Type: application/problem+json" in answer
            assert json.loads(await reader.read())["status"] == status
    writer.close()
