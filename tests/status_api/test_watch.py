"""Waiting for a task: long-polls."""

import asyncio

import pytest


async def poll(api, task_id, query, path="/api/v1/tasks/{}/status"):
    status, answer = await api.call("GET", path.format(task_id) + query)
    assert status == 200, answer
    return answer


async def test_status_at_once(api):
    task_id = await api.submit()
    for path in ("/api/v1/tasks/{}/status", "/status/{}"):
        answer = await poll(api, task_id, "", path)
        assert answer["status"] == "queued"
        assert answer["progress"] == {"percent": None, "current_step": None, "estimated_time_remaining": None}
        assert answer.keys() == {
            "task_id", "status", "waiting_for", "progress", "attempt", "retry_count", "next_retry_at", "created_at",
            "started_at", "estimated_completion",
        }  # fmt: skip


async def test_a_change_answers(api):
    task_id = await api.submit()
    waiting = asyncio.ensure_future(poll(api, task_id, "?wait=60"))
    final = asyncio.ensure_future(poll(api, task_id, "?wait=60&until=final"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    [claim] = await api.pool.claim()
    assert (await waiting)["status"] == "running"
    assert not final.done()
    await api.complete(task_id, claim.attempt.id)
    assert (await final)["status"] == "completed"
    assert (await poll(api, task_id, "?wait=60"))["status"] == "completed"


async def test_a_time_that_passes_answers(api):
    task_id = await api.submit()
    assert (await poll(api, task_id, "?wait=0.05"))["status"] == "queued"
    for bad in ("-1", "nan", "x", "", "null"):
        assert (await api.call("GET", f"/status/{task_id}?wait={bad}"))[0] == 400
    assert (await api.call("GET", f"/status/{task_id}?until=done"))[0] == 400
    assert (await api.call("GET", f"/status/{task_id}?until=null"))[0] == 400


@pytest.mark.parametrize("wait", ["3600", "inf", "1e300"])
async def test_draining_lets_go_of_who_waits(api, wait):
    task_id = await api.submit()
    waiting = [asyncio.ensure_future(poll(api, task_id, f"?wait={wait}&until=final")) for _ in range(3)]
    await asyncio.sleep(0.05)
    api.services.waits.end()
    assert [answer["status"] for answer in await asyncio.gather(*waiting)] == ["queued"] * 3
    assert (await poll(api, task_id, "?wait=60"))["status"] == "queued"


async def test_a_task_of_nobody_is_404_and_waits_for_nothing(api):
    assert (await api.call("GET", "/status/nope?wait=60"))[0] == 404
