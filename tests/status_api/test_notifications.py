"""Notifications over HTTP: sent, listed, looked at, acknowledged; who may; and the event that tells of one."""

import asyncio
import json

import msgspec
import pytest

from orchestr8d.core.notices import User

BASE = {"user_id": "ann", "notification_type": "update", "message": "hello"}


async def send(api, **more):
    status, answer = await api.call("POST", "/api/v1/notifications", BASE | more)
    assert status == 201, answer
    return answer["notification_id"]


async def listed(api, query=""):
    status, answer = await api.call("GET", f"/api/v1/notifications{query}")
    assert status == 200, answer
    return [one["notification_id"] for one in answer["notifications"]]


async def test_a_notification_and_its_channels(api):
    api.services.store.limits = msgspec.structs.replace(
        api.services.store.limits, users={"ann": User(("log", "mailto://me:hunter2@h?from=a@a.org&to=b@b.org"))}
    )
    sent = await send(api, title="T", priority="critical", workflow_id="w", task_id="t", metadata={"a": 1})
    status, answer = await api.call("GET", f"/api/v1/notifications/{sent}")
    assert status == 200
    created = answer.pop("created_at")
    assert created.endswith("Z")
    expected = {
        "notification_id": sent, "user_id": "ann", "notification_type": "update", "title": "T", "message": "hello",
        "priority": "critical", "workflow_id": "w", "task_id": "t", "metadata": {"a": 1}, "acked_at": None,
        "delivered": False, "delivered_at": None,
    }  # fmt: skip
    assert answer == expected | {
        "channels": [
            {"channel": "log", "status": "pending", "attempts": 0, "error": None},
            {"channel": "mailto://h?from=a@a.org&to=b@b.org", "status": "pending", "attempts": 0, "error": None},
        ]
    }
    _, answer = await api.call("GET", "/api/v1/notifications")
    assert answer == {"notifications": [{**expected, "created_at": created}], "next_cursor": None}
    assert (await api.call("GET", "/api/v1/notifications/nope"))[0] == 404


async def test_filters_and_pages(api):
    a, b = await send(api), await send(api, user_id="bob", notification_type="failure")
    c = await send(api, workflow_id="w")
    assert await listed(api) == [c, b, a]
    assert await listed(api, "?user_id=ann") == [c, a]
    assert await listed(api, "?workflow_id=w") == [c]
    assert await listed(api, "?type=task_failure") == await listed(api, "?type=failure,alert") == [b]
    assert (await api.call("POST", f"/api/v1/notifications/{a}/ack"))[0] == 200
    assert await listed(api, "?unread=1") == [c, b]
    assert await listed(api, "?unread=0") == [c, b, a]
    _, page = await api.call("GET", "/api/v1/notifications?limit=2")
    assert [one["notification_id"] for one in page["notifications"]] == [c, b]
    assert await listed(api, f"?limit=2&cursor={page['next_cursor']}") == [a]
    status, answer = await api.call("GET", "/api/v1/notifications?type=task_failed")
    assert (status, answer["errors"][0]["path"]) == (400, "type")
    assert "did you mean 'task_failure'" in answer["detail"]
    assert (await api.call("GET", "/api/v1/notifications?unred=1"))[0] == 400


async def test_acknowledging(api):
    a, b = await send(api), await send(api)
    c = await send(api, user_id="bob")
    _, first = await api.call("POST", f"/api/v1/notifications/{a}/ack")
    status, again = await api.call("POST", f"/api/v1/notifications/{a}/ack")
    assert status == 200 and first == again and first["acked_at"]
    assert await api.call("POST", "/api/v1/notifications:ack-all?user_id=ann") == (200, {"count": 1})
    assert await listed(api, "?unread=1") == [c]
    assert await api.call("POST", "/api/v1/notifications:ack-all") == (200, {"count": 1})
    assert await listed(api, "?unread=1") == []
    assert await listed(api) == [c, b, a]
    assert (await api.call("POST", "/api/v1/notifications/nope/ack"))[0] == 404


async def test_all_faults_at_once(api):
    body = {"notification_type": "news", "message": "", "priority": "urgent", "titel": "x"}
    status, answer = await api.call("POST", "/api/v1/notifications", body)
    assert status == 400
    assert {fault["path"] for fault in answer["errors"]} == {
        "user_id", "notification_type", "message", "priority", "titel"
    }  # fmt: skip
    status, answer = await api.call("POST", "/api/v1/notifications", BASE | {"metadata": {"a": "x" * 70_000}})
    assert (status, answer["errors"][0]["path"]) == (400, "metadata")


async def test_sent_twice_it_is_one(api):
    headers = {"Idempotency-Key": "k"}
    first = await api.call("POST", "/api/v1/notifications", BASE, headers=headers)
    assert (await api.call("POST", "/api/v1/notifications", BASE, headers=headers)) == (200, first[1])
    assert len(await listed(api)) == 1


async def test_tokens_of_a_user_and_of_a_reader(api):
    mine = await send(api)
    bound = {"Authorization": f"Bearer {await api.make_token(scope='submit', user_id='bob')}"}
    status, answer = await api.call("POST", "/api/v1/notifications", BASE, headers=bound)
    assert status == 403 and "'bob'" in answer["detail"]
    assert (await api.call("POST", "/api/v1/notifications", BASE | {"user_id": "bob"}, headers=bound))[0] == 201
    assert (await api.call("POST", f"/api/v1/notifications/{mine}/ack", headers=bound))[0] == 403
    assert (await api.call("POST", "/api/v1/notifications:ack-all?user_id=ann", headers=bound))[0] == 403
    assert await api.call("POST", "/api/v1/notifications:ack-all", headers=bound) == (200, {"count": 1})
    assert await listed(api, "?unread=1") == [mine]
    reader = {"Authorization": f"Bearer {await api.make_token(scope='read')}"}
    assert (await api.call("GET", "/api/v1/notifications", headers=reader))[0] == 200
    assert (await api.call("POST", "/api/v1/notifications", BASE, headers=reader))[0] == 403


async def test_a_task_speaks_for_itself(api):
    task_id, attempt_id = await api.run("true", user_id="ann")
    other = await api.submit("true", user_id="ann")
    own = {"Authorization": f"Bearer {api.services.tokens.attempt_token(attempt_id)}"}
    status, answer = await api.call("POST", "/api/v1/notifications", BASE, headers=own)
    assert status == 201
    _, shown = await api.call("GET", f"/api/v1/notifications/{answer['notification_id']}")
    assert (shown["user_id"], shown["task_id"]) == ("ann", task_id)
    assert (await api.call("POST", "/api/v1/notifications", BASE | {"user_id": "bob"}, headers=own))[0] == 403
    assert (await api.call("POST", "/api/v1/notifications", BASE | {"task_id": other}, headers=own))[0] == 403
    assert (await api.call("GET", "/api/v1/notifications", headers=own))[0] == 403


async def test_the_event_is_the_whole_notification(api):
    sent = await send(api, title="T", metadata={"a": [1, None]})
    _, one = await api.call("GET", f"/api/v1/notifications/{sent}")
    del one["channels"]
    async with asyncio.timeout(10):
        url = f"{api.url}/api/v1/events?after=0&type=notification.*&user_id=ann"
        async with api.http.get(url, headers=api.auth) as response:
            async for line in response.content:
                if line.startswith(b"data:"):
                    event = json.loads(line[5:])
                    break
    assert (event["type"], event["user_id"], event["data"]) == ("notification.created", "ann", one)


@pytest.mark.parametrize("text", ["\u0000", "x\r\ny", "✓" * 1000])
async def test_any_text_comes_back_as_it_was(api, text):
    sent = await send(api, message=text, title=text)
    _, one = await api.call("GET", f"/api/v1/notifications/{sent}")
    assert (one["message"], one["title"]) == (text, text)
