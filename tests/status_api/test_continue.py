"""Saying more to an agent whose task has ended."""

import msgspec

from orchestr8d.core.model import AgentSpec, NewTask, Spec, Worktree
from orchestr8d.core.outcome import Outcome

SPEC = Spec(
    agent=AgentSpec("general-purpose", model="opus", allowed_tools=["Bash"], isolation="worktree"),
    prompt="Look at it", cwd="/", env={"CI": "1"}, title="look", timeout=60.0, max_retries=2, tags=["review"],
)  # fmt: skip


async def ended(api, spec=SPEC, worktree=None):
    """An agent's task that has run to its end."""
    created = await api.services.store.submit(
        [NewTask(spec=spec, kind="claude", queue="agents", priority=5)], lambda tasks: b"{}"
    )
    task_id = created.tasks[0].id
    [claim] = await api.pool.claim()
    assert claim.task.id == task_id
    outcome = Outcome(status="completed", exit_code=0, result=b"seen", result_type="summary", worktree=worktree)
    await api.pool.finish(task_id, claim.attempt.id, outcome)
    return task_id


async def test_a_new_task_goes_on_where_the_old_one_ended(api):
    source = await ended(api)
    _, before = await api.call("GET", f"/api/v1/tasks/{source}")
    status, answer = await api.call("POST", f"/api/v1/tasks/{source}/continue", {"prompt": "/and now?"})
    assert (status, answer["status"]) == (202, "queued")
    _, task = await api.call("GET", f"/api/v1/tasks/{answer['task_id']}")
    assert (task["agent"], task["prompt"], task["cwd"]) == ("general-purpose", "/and now?", "/")
    assert (task["queue"], task["priority"], task["tags"], task["max_retries"]) == ("agents", 5, ["review"], 2)
    assert (task["title"], task["retry_of"]) == (None, None)
    assert task["options"] == before["options"] | {"resume_from": source}
    spec = (await api.services.store.task(answer["task_id"])).read_spec()
    assert before["session_id"] and spec.agent.session_id == before["session_id"]
    assert spec.env == {"CI": "1"}
    _, after = await api.call("GET", f"/api/v1/tasks/{source}")
    assert after == before


async def test_options_say_what_shall_differ(api):
    source = await ended(api)
    options = {"model": "haiku", "timeout": "5m", "priority": "low", "isolation": None}
    status, answer = await api.call("POST", f"/api/v1/tasks/{source}/continue", {"prompt": "more", "options": options})
    assert status == 202
    _, task = await api.call("GET", f"/api/v1/tasks/{answer['task_id']}")
    assert (task["options"]["model"], task["options"]["timeout"], task["priority"]) == ("haiku", 300, -10)
    assert (task["options"]["isolation"], task["options"]["allowed_tools"]) == ("none", ["Bash"])


async def test_it_can_be_gone_on_with_again_and_again(api):
    last = await ended(api)
    for n in range(3):
        _, answer = await api.call("POST", f"/api/v1/tasks/{last}/continue", {"prompt": str(n)})
        [claim] = await api.pool.claim()
        assert claim.task.read_spec().agent.resume_from == last
        await api.complete(claim.task.id, claim.attempt.id)
        last = answer["task_id"]


async def test_what_cannot_be_gone_on_with(api):
    command = await api.submit()
    [claim] = await api.pool.claim()
    await api.complete(command, claim.attempt.id)
    created = await api.services.store.submit([NewTask(spec=SPEC, kind="claude")], lambda tasks: b"{}")
    unfinished = created.tasks[0].id
    for task_id, said in ((command, "is a command"), (unfinished, "is queued")):
        status, problem = await api.call("POST", f"/api/v1/tasks/{task_id}/continue", {"prompt": "more"})
        assert status == 409 and said in problem["detail"], problem
    await api.call("POST", f"/api/v1/tasks/{unfinished}/cancel")
    status, problem = await api.call("POST", f"/api/v1/tasks/{unfinished}/continue", {"prompt": "more"})
    assert status == 409 and "never ran" in problem["detail"]
    status, _ = await api.call("POST", f"/api/v1/tasks/{command[:-1]}x/continue", {"prompt": "more"})
    assert status == 404


async def test_an_agent_that_is_gone_is_told(api):
    spec = msgspec.structs.replace(SPEC, agent=AgentSpec("no-such-agent-any-more"))
    source = await ended(api, spec)
    status, problem = await api.call("POST", f"/api/v1/tasks/{source}/continue", {"prompt": "more"})
    assert (status, problem["errors"][0]["path"]) == (422, "agent")


async def test_all_faults_are_listed(api):
    source = await ended(api)
    body = {"options": {"model": 3, "max_turns": 0, "account": "nobody"}}
    status, problem = await api.call("POST", f"/api/v1/tasks/{source}/continue", body)
    assert status == 400
    assert {fault["path"] for fault in problem["errors"]} == {
        "prompt", "options.model", "options.max_turns", "options.account",
    }  # fmt: skip


async def test_sent_twice_it_is_one_task(api):
    source = await ended(api)
    headers = {"Idempotency-Key": "k"}
    path, body = f"/api/v1/tasks/{source}/continue", {"prompt": "more"}
    first = await api.call("POST", path, body, headers=headers)
    again = await api.call("POST", path, body, headers=headers)
    assert (first[0], again[0], again[1]) == (202, 200, first[1])
    assert (await api.call("POST", path, {"prompt": "other"}, headers=headers))[0] == 409


async def test_a_result_names_the_files_of_all_attempts(api):
    created = await api.services.store.submit([NewTask(spec=SPEC, kind="claude")], lambda tasks: b"{}")
    for status, files in (("interrupted", ["/w/a", "/w/b"]), ("completed", ["/w/b", "/w/c"])):
        [claim] = await api.pool.claim()
        await api.pool.finish(claim.task.id, claim.attempt.id, Outcome(status=status, files_created=files))
    _, result = await api.call("GET", f"/api/v1/tasks/{created.tasks[0].id}/result")
    assert result["files_created"] == ["/w/a", "/w/b", "/w/c"]


async def test_a_result_says_where_the_worktree_is(api):
    left = Worktree("/state/worktrees/x", "orchestr8/x", ["abc123 work"], ["a.txt"])
    source = await ended(api, worktree=left)
    _, result = await api.call("GET", f"/api/v1/tasks/{source}/result")
    assert result["worktree"] == msgspec.to_builtins(left)
