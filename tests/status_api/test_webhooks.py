"""Webhooks and deliveries over HTTP."""

import msgspec
import pytest

from orchestr8d import config_sections
from orchestr8d.core import signature
from orchestr8d.core.delivery import Made
from orchestr8d.core.model import Error
from orchestr8d.store.types import Limits

URL = "http://127.0.0.1:9/in"
HOOKS = "/api/v1/webhooks"


async def add(api, **more):
    status, answer = await api.call("POST", HOOKS, {"url": URL, "events": ["task.*"], **more})
    assert status == 201, answer
    return answer["webhook_id"]


async def end_one(api, webhook_id, made):
    [sending] = (await api.services.store.due_deliveries({}, 10)).found
    assert sending.delivery.webhook_id == webhook_id
    await api.services.store.delivery_done(sending.delivery, made)
    return sending.delivery.id


async def test_the_life_of_a_webhook(api):
    body = {"url": URL, "events": ["task.*"], "headers": {"Authorization": "Bearer 0123456789"}}
    status, made = await api.call("POST", HOOKS, body)
    assert status == 201 and set(made) == {"webhook_id", "secret"}
    assert len(signature.key(made["secret"])) == 32
    one = f"{HOOKS}/{made['webhook_id']}"
    status, shown = await api.call("GET", one)
    assert status == 200 and made["secret"] not in str(shown) and "0123456789" not in str(shown)
    assert (shown["status"], shown["events"], shown["user_id"], shown["failures"]) == ("active", ["task.*"], None, 0)
    assert (await api.call("GET", HOOKS))[1] == {"webhooks": [shown], "next_cursor": None}
    status, changed = await api.call("PATCH", one, {"events": ["*"], "user_id": "me"})
    assert (status, changed["events"], changed["user_id"], changed["url"]) == (200, ["*"], "me", URL)
    status, fresh = await api.call("POST", f"{one}/rotate-secret")
    assert status == 200 and set(fresh) == {"secret"} and fresh["secret"] != made["secret"]
    assert [s.text for s in (await api.services.store.webhook(made["webhook_id"])).secrets] == [
        fresh["secret"], made["secret"],
    ]  # fmt: skip
    assert (await api.call("POST", f"{one}/pause"))[1]["status"] == "paused"
    assert (await api.call("POST", f"{one}/resume"))[1]["status"] == "active"
    status, sent = await api.call("POST", f"{one}/test")
    assert (status, sent["type"], sent["status"]) == (200, "webhook.test", "pending")
    assert (await api.call("DELETE", one))[0] == 200
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/pause")):
        assert (await api.call(method, f"{one}{path}", {} if method == "PATCH" else None))[0] == 404


async def test_headers_are_for_admins(api):
    """Whatever they are called, they are there to let the daemon in."""
    one = f"{HOOKS}/{await add(api, headers={'X-Door': 'open'})}"
    reader = {"Authorization": f"Bearer {await api.make_token(scope='read')}"}
    assert (await api.call("GET", one))[1]["headers"] == {"X-Door": "open"}
    assert (await api.call("GET", one, headers=reader))[1]["headers"] == {"X-Door": "[redacted]"}
    assert (await api.call("GET", HOOKS, headers=reader))[1]["webhooks"][0]["headers"] == {"X-Door": "[redacted]"}


async def test_a_secret_of_ones_own_and_a_repeated_request(api):
    secret = signature.make_secret(b"z" * 24)
    body = {"url": URL, "events": ["task.failed"], "secret": secret}
    first = await api.call("POST", HOOKS, body, headers={"Idempotency-Key": "k"})
    again = await api.call("POST", HOOKS, body, headers={"Idempotency-Key": "k"})
    assert (first[0], again[0]) == (201, 200) and first[1] == again[1]
    assert first[1]["secret"] == secret
    assert len((await api.call("GET", HOOKS))[1]["webhooks"]) == 1


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"url": "http://10.0.0.1/"}, "url"), ({"url": "http://127.1/"}, "url"), ({"url": "http://u:p@a/"}, "url"),
        ({"url": "ftp://a/"}, "url"), ({"url": "http://a/#f"}, "url"), ({"url": "http://a\\b/"}, "url"),
        ({"url": "http://a/\n"}, "url"), ({"url": "http://169.254.169.254/"}, "url"), ({"url": 1}, "url"),
        ({"events": []}, "events"), ({"events": ["task.done"]}, "events[0]"), ({"events": ["nothing.*"]}, "events[0]"),
        ({"secret": "hunter2"}, "secret"), ({"headers": {"a b": "c"}}, "headers.a b"),
        ({"headers": {"A": "b\r\nC: d"}}, "headers.A"), ({"headers": {"Host": "a"}}, "headers.Host"),
        ({"headers": {"webhook-id": "a"}}, "headers.webhook-id"), ({"headers": {"A": "[redacted]"}}, "headers.A"),
        ({"nothing": 1}, "nothing"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(api, change, path):
    status, answer = await api.call("POST", HOOKS, {"url": URL, "events": ["*"], **change})
    assert status == 400
    assert [e["path"] for e in answer["errors"]] == [path]
    assert (await api.call("GET", HOOKS))[1]["webhooks"] == []


async def test_allow_of_the_configuration(api):
    body = {"url": "http://10.1.2.3/", "events": ["*"]}
    assert (await api.call("POST", HOOKS, body))[0] == 400
    api.config = msgspec.structs.replace(api.config, webhooks=config_sections.WebhooksConfig(allow=["10.1.0.0/16"]))
    assert (await api.call("POST", HOOKS, body))[0] == 201
    assert (await api.call("POST", HOOKS, {**body, "url": URL}))[0] == 400


async def test_deliveries(api):
    api.services.store.limits = Limits(min_free_disk=0, ladder=(60.0,))
    webhook_id = await add(api, events=["task.created"])
    first = await api.submit()
    second = await api.submit()
    done = await end_one(api, webhook_id, Made(1000, 500, Error("status", "answered with 500"), 0.5, "oops"))
    status, page = await api.call("GET", "/api/v1/deliveries")
    assert status == 200 and [d["task_id"] for d in page["deliveries"]] == [second, first]
    tried = page["deliveries"][1]
    assert tried | {"next_at": None, "created_at": None} == {
        "delivery_id": done, "url": URL, "method": "POST", "webhook_id": webhook_id, "event_id": tried["event_id"],
        "type": "task.created", "task_id": first, "status": "pending", "retry_count": 1,
        "last_attempt": "1970-01-01T00:00:01.000Z", "next_at": None, "created_at": None,
        "attempts": [{"at": "1970-01-01T00:00:01.000Z", "status_code": 500, "duration": 0.5, "body": "oops",
                      "error": {"kind": "status", "message": "answered with 500"}}],
    }  # fmt: skip
    reader = await api.make_token(scope="read")
    status, seen = await api.call("GET", f"/api/v1/deliveries/{done}", headers={"Authorization": f"Bearer {reader}"})
    assert (status, seen["attempts"][0]["body"]) == (200, None)
    for query, found in (
        (f"task_id={first}", [first]), (f"webhook_id={webhook_id}&limit=1", [second]), ("status=delivered", []),
        ("since=2099-01-01T00:00:00Z", []), ("since=2020-01-01T00:00:00Z", [second, first]),
    ):  # fmt: skip
        page = (await api.call("GET", f"/api/v1/deliveries?{query}"))[1]
        assert [d["task_id"] for d in page["deliveries"]] == found
    page = (await api.call("GET", "/api/v1/deliveries?limit=1"))[1]
    page = (await api.call("GET", f"/api/v1/deliveries?limit=1&cursor={page['next_cursor']}"))[1]
    assert ([d["task_id"] for d in page["deliveries"]], page["next_cursor"]) == ([first], None)
    for query in ("status=lost", "since=yesterday", "color=red"):
        assert (await api.call("GET", f"/api/v1/deliveries?{query}"))[0] == 400


async def test_sending_again(api):
    webhook_id = await add(api, events=["task.created"])
    task_id = await api.submit()
    done = await end_one(api, webhook_id, Made(1000, 204))
    status, again = await api.call("POST", f"/api/v1/deliveries/{done}/redeliver")
    assert (status, again["status"]) == (200, "pending")
    await end_one(api, webhook_id, Made(1000, 204))
    for body, count in (({"task_id": task_id}, 1), ({"status": "dead"}, 0)):
        assert await api.call("POST", "/api/v1/deliveries:redeliver", body) == (200, {"count": count})
    assert (await api.call("POST", "/api/v1/deliveries:redeliver", {}))[0] == 400
    assert (await api.call("POST", "/api/v1/deliveries/nothing/redeliver"))[0] == 404
    await api.call("DELETE", f"{HOOKS}/{webhook_id}")
    assert (await api.call("POST", f"/api/v1/deliveries/{done}/redeliver"))[0] == 409


async def test_tokens_that_are_bound_to_a_user(api):
    token = await api.make_token(scope="admin", user_id="me")
    mine = {"Authorization": f"Bearer {token}"}
    body = {"url": URL, "events": ["task.created"]}
    status, made = await api.call("POST", HOOKS, body, headers=mine)
    assert status == 201
    assert (await api.services.store.webhook(made["webhook_id"])).user_id == "me"
    other = await add(api)
    assert (await api.call("POST", HOOKS, {**body, "user_id": "you"}, headers=mine))[0] == 403
    assert len((await api.call("GET", HOOKS, headers=mine))[1]["webhooks"]) == 1
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate-secret"), ("POST", "/test")):
        assert (await api.call(method, f"{HOOKS}/{other}{path}", headers=mine))[0] == 403
    await api.submit()
    assert (await api.call("GET", "/api/v1/deliveries", headers=mine))[1]["deliveries"] == []
