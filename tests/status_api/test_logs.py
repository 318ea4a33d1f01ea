"""Output of attempts and files of tasks."""

import asyncio
import socket
from urllib.parse import quote

import aiohttp
import msgspec
import pytest

from orchestr8d.core.model import AgentSpec, NewTask, Spec, Worktree
from orchestr8d.core.outcome import Outcome
from orchestr8d.status_api import logs as module


async def text(api, task_id, query=""):
    status, body = await api.call("GET", f"/api/v1/tasks/{task_id}/logs{query}")
    assert status == 200, body
    return body


async def test_streams_offsets_and_tails(api):
    lines = b"".join(b"line %d\n" % i for i in range(10))
    task_id, attempt_id = await api.run(stdout=lines)
    api.write(attempt_id, b"\xff\x00err", "stderr")
    assert await text(api, task_id) == lines
    assert await text(api, task_id, "?stream=stderr") == b"\xff\x00err"
    assert await text(api, task_id, "?offset=63") == b"line 9\n"
    assert await text(api, task_id, "?offset=1000") == b""
    assert await text(api, task_id, "?tail=2") == b"line 8\nline 9\n"
    assert await text(api, task_id, "?tail=0") == b""
    assert await text(api, task_id, "?tail=99&attempt=1") == lines
    api.write(attempt_id, b"half")
    assert await text(api, task_id, "?tail=2") == b"line 9\nhalf"
    for query, status in (
        ("?attempt=2", 404), ("?attempt=0", 400), ("?stream=stdin", 400), ("?stream=transcript", 422),
        ("?offset=-1", 400), ("?offset=1&tail=1", 400), ("?follow=maybe", 400),
    ):  # fmt: skip
        assert (await api.call("GET", f"/api/v1/tasks/{task_id}/logs{query}"))[0] == status, query


@pytest.mark.parametrize("lines", [1, 2, 3, 100])
@pytest.mark.parametrize("data", [b"", b"\n", b"a", b"a\n", b"\n\n\n", b"a\nb\nc", b"aa\nbb\n\ncc\n"])
def test_last_lines_across_pieces(tmp_path, monkeypatch, data, lines):
    for piece in (1, 2, 3, 1000):
        monkeypatch.setattr(module, "PIECE", piece)
        (tmp_path / "f").write_bytes(data)
        assert data[module._start_of_last_lines(tmp_path / "f", lines) :] == b"".join(
            data.splitlines(keepends=True)[-lines:]
        )


async def test_headers_and_what_has_no_output(api):
    task_id = await api.submit()
    async with api.http.get(api.url + f"/api/v1/tasks/{task_id}/logs", headers=api.auth) as response:
        assert await response.read() == b""
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Transfer-Encoding"] == "chunked"


async def follow(api, task_id, got, query="?follow=1"):
    async with api.http.get(api.url + f"/api/v1/tasks/{task_id}/logs{query}", headers=api.auth) as response:
        assert response.status == 200
        async for data in response.content.iter_any():
            got += data


async def until(check):
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_following_from_the_queue_over_a_retry_to_the_end(api):
    task_id = await api.submit(max_retries=1, retry_backoff={"kind": "fixed", "base": 0.05, "jitter": False})
    got = bytearray()
    following = asyncio.ensure_future(follow(api, task_id, got))
    await asyncio.sleep(0.05)
    [claim] = await api.pool.claim()
    api.write(claim.attempt.id, b"one ")
    await until(lambda: got == b"one ")
    api.write(claim.attempt.id, b"two ")
    await api.fail(task_id, claim.attempt.id)
    await until(lambda: got == b"one two ")
    again = []
    while not again:
        again = await api.pool.claim()
        await asyncio.sleep(0.01)
    api.write(again[0].attempt.id, b"three")
    await api.complete(task_id, again[0].attempt.id)
    await asyncio.wait_for(following, 5)
    assert got == b"one two three"
    assert await text(api, task_id) == b"three"
    assert await text(api, task_id, "?attempt=1&follow=1") == b"one two "


async def test_draining_breaks_a_follower_off(api):
    task_id, _ = await api.run(stdout=b"begin")
    got = bytearray()
    following = asyncio.ensure_future(follow(api, task_id, got))
    await until(lambda: got == b"begin")
    api.services.waits.end()
    with pytest.raises(aiohttp.ClientPayloadError):
        await asyncio.wait_for(following, 5)


@pytest.mark.parametrize("query", ["", "?follow=1"])
async def test_draining_waits_for_no_client_that_reads_nothing(api, query):
    task_id, _ = await api.run(stdout=b"x" * (32 << 20))
    reading = socket.socket()
    reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reading.connect(("127.0.0.1", api.port))
    reader, writer = await asyncio.open_connection(sock=reading, limit=1024)
    writer.write(
        b"GET /api/v1/tasks/%b/logs%b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n\r\n"
        % (task_id.encode(), query.encode(), api.token.encode())
    )
    await reader.readuntil(b"\r\n\r\n")
    api.services.waits.end()
    with pytest.raises((ConnectionError, EOFError)):
        async with asyncio.timeout(5):
            while True:
                await reader.readexactly(65536)
    writer.close()


async def agent_run(api, cwd="/"):
    """A running task of an agent: its id and its attempt's."""
    new = NewTask(spec=Spec(agent=AgentSpec("general-purpose"), prompt="p", cwd=cwd), kind="claude")
    created = await api.services.store.submit([new], lambda tasks: b"{}")
    [claim] = await api.pool.claim()
    return created.tasks[0].id, claim.attempt.id


def said(text):
    return msgspec.json.encode({"type": "assistant", "message": {"content": [{"type": "text", "text": text}]}}) + b"\n"


async def test_a_transcript_counts_in_its_own_bytes_and_lines(api, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 100)
    task_id, attempt_id = await agent_run(api)
    api.write(attempt_id, b"".join(said(f"line {n}") for n in range(10)) + said("half")[:30])
    at = "?stream=transcript"
    whole = b"".join(b"line %d\n" % n for n in range(10))
    assert await text(api, task_id, at) == whole
    assert await text(api, task_id, f"{at}&offset=60") == whole[60:]
    assert await text(api, task_id, f"{at}&offset=1000") == b""
    assert await text(api, task_id, f"{at}&tail=2") == b"line 8\nline 9\n"
    assert await text(api, task_id, f"{at}&tail=0") == b""
    assert await text(api, task_id, f"{at}&tail=99&attempt=1") == whole
    await api.complete(task_id, attempt_id)
    rest = said("half")[:30] + b"\n"
    assert await text(api, task_id, at) == whole + rest
    assert await text(api, task_id, f"{at}&tail=2") == b"line 9\n" + rest
    assert (await text(api, task_id)).startswith(said("line 0"))


async def test_a_transcript_is_followed_to_its_end(api):
    task_id, attempt_id = await agent_run(api)
    got, late = bytearray(), bytearray()
    api.write(attempt_id, said("one") + said("two"))
    following = asyncio.ensure_future(follow(api, task_id, got, "?stream=transcript&follow=1"))
    tailing = asyncio.ensure_future(follow(api, task_id, late, "?stream=transcript&follow=1&tail=1&attempt=1"))
    await until(lambda: got == b"one\ntwo\n" and late == b"two\n")
    api.write(attempt_id, said("three")[:20])
    api.write(attempt_id, said("three")[20:] + b"Terminated")
    await until(lambda: got.endswith(b"three\n"))
    await api.complete(task_id, attempt_id)
    await asyncio.wait_for(asyncio.gather(following, tailing), 5)
    assert got == b"one\ntwo\nthree\nTerminated\n"
    assert late == b"two\nthree\nTerminated\n"


async def test_files_of_a_worktree_are_found_there(api, tmp_path):
    (tmp_path / "repo/.git").mkdir(parents=True)
    (tmp_path / "repo/sub").mkdir()
    made = tmp_path / "worktrees/x/sub"
    made.mkdir(parents=True)
    (made / "made.txt").write_bytes(b"made")
    task_id, attempt_id = await agent_run(api, str(tmp_path / "repo/sub"))
    left = Worktree(str(tmp_path / "worktrees/x"), "orchestr8/x", [], ["sub/made.txt"])
    outcome = Outcome(status="completed", exit_code=0, files_created=["made.txt", "../../y"], worktree=left)
    await api.pool.finish(task_id, attempt_id, outcome)
    assert await api.call("GET", f"/api/v1/tasks/{task_id}/files/made.txt") == (200, b"made")
    (tmp_path / "worktrees/y").write_bytes(b"secret")
    assert (await api.call("GET", f"/api/v1/tasks/{task_id}/files/..%2f..%2fy"))[0] == 404


async def test_files_of_a_worktree_have_the_paths_that_their_agent_used(api, tmp_path):
    """Also where the task's directory is a link into the repository, and above that directory."""
    (tmp_path / "repo/.git").mkdir(parents=True)
    (tmp_path / "repo/sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "repo/sub")
    top = tmp_path / "worktrees/x"
    (top / "sub").mkdir(parents=True)
    (top / "sub/made.txt").write_bytes(b"made")
    (top / "above.txt").write_bytes(b"above")
    task_id, attempt_id = await agent_run(api, str(tmp_path / "link"))
    left = Worktree(str(top), "orchestr8/x", [], ["sub/made.txt", "above.txt"])
    named = [str(top / "sub/made.txt"), str(top / "above.txt"), str(tmp_path / "repo/sub")]
    outcome = Outcome(status="completed", exit_code=0, files_created=named, worktree=left)
    await api.pool.finish(task_id, attempt_id, outcome)
    at = f"/api/v1/tasks/{task_id}/files"
    for path in (f"{top}/sub/made.txt", "made.txt", quote(f"{top}/sub/made.txt", safe="")):
        assert await api.call("GET", f"{at}/{path}") == (200, b"made"), path
    assert await api.call("GET", f"{at}/{top}/above.txt") == (200, b"above")
    for path in (f"{tmp_path}/repo/sub", "other.txt", f"{top}/sub/../../../link"):
        assert (await api.call("GET", f"{at}/{path}"))[0] == 404, path


async def test_files_that_the_runner_named_and_no_others(api, tmp_path):
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "sub" / "made.txt").write_bytes(b"made")
    (work / "other.txt").write_bytes(b"other")
    (tmp_path / "secret").write_bytes(b"secret")
    (work / "link").symlink_to(tmp_path / "secret")
    _, answer = await api.call("POST", "/api/v1/tasks", {"command": ["x"], "cwd": str(work)})
    [claim] = await api.pool.claim()
    named = ["sub/made.txt", "link", "../secret", str(tmp_path / "secret"), "gone", "sub"]
    outcome = Outcome(status="completed", exit_code=0, files_created=named)
    await api.pool.finish(answer["task_id"], claim.attempt.id, outcome)
    at = f"/api/v1/tasks/{answer['task_id']}/files"
    assert await api.call("GET", f"{at}/sub/made.txt") == (200, b"made")
    for path in ("other.txt", "link", "..%2fsecret", "gone", "sub", "sub%2f", str(tmp_path / "secret"), "%00"):
        async with api.http.get(f"{api.url}{at}/{path}", headers=api.auth) as response:
            assert response.status == 404, path
    _, result = await api.call("GET", f"/api/v1/tasks/{answer['task_id']}/result")
    assert result["files_created"] == named
    assert msgspec.json.encode(result)
