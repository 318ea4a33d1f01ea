"""Agents over HTTP: the list and its pages, what a name means, and who may ask."""

from urllib.parse import quote

import pytest

from orchestr8d import config


def write(directory, name, text="---\ndescription: Does it\ntools: Read\n---\nDo it."):
    path = directory / ".claude" / "agents" / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


async def test_the_list_as_seen_from_a_directory(api, tmp_path):
    path = write(tmp_path / "app", "q/mine")
    status, answer = await api.call("GET", f"/api/v1/agents?cwd={tmp_path}/app&limit=1000")
    assert status == 200
    assert answer.keys() == {"agents", "ignored", "next_cursor"}
    shown = {agent["id"]: agent for agent in answer["agents"]}
    assert shown[".claude:q:mine"] == {
        "name": "mine", "id": ".claude:q:mine", "path": str(path), "description": "Does it", "model": None,
        "tools": ["Read"],
    }  # fmt: skip
    assert shown["general-purpose"]["path"] is None
    assert "orchestr8d:code-reviewer" in shown
    _, elsewhere = await api.call("GET", f"/api/v1/agents?cwd={tmp_path}&limit=1000")
    assert ".claude:q:mine" not in [agent["id"] for agent in elsewhere["agents"]]


async def test_pages_have_each_agent_once(api, tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path / "app", name, "---\nname: same\n---\nx")
    seen, cursor = [], ""
    while cursor is not None:
        _, page = await api.call("GET", f"/api/v1/agents?cwd={tmp_path}/app&limit=2{cursor and f'&cursor={cursor}'}")
        seen += [(agent["id"], agent["path"]) for agent in page["agents"]]
        cursor = page["next_cursor"]
    assert seen == sorted(set(seen), key=lambda one: (one[0], one[1] or ""))
    assert [agent_id for agent_id, _ in seen].count(".claude:same") == 3
    assert (await api.call("GET", "/api/v1/agents?cursor=x"))[0] == 400


async def test_what_cannot_be_read_is_named(api, tmp_path):
    path = write(tmp_path, "big", "x" * (1 << 20) + "x")
    _, answer = await api.call("GET", f"/api/v1/agents?cwd={tmp_path}")
    assert answer["ignored"] == [f"{path}: is larger than 1 MB"]


async def test_what_a_name_means(api, tmp_path):
    path = write(tmp_path, "mine", "---\nname: mine\nhint: [a] [b]\n---\nDo it.")
    expected = {
        "name": "mine", "id": ".claude:mine", "path": str(path), "description": "Do it.", "model": None, "tools": None,
        "ignored": ["hint: not valid YAML"],
    }  # fmt: skip
    for name in ("mine", ".claude:mine", str(path), "./.claude/agents/mine.md"):
        found = await api.call("GET", f"/api/v1/agents/{quote(name, safe='')}?cwd={tmp_path}")
        assert found == (200, expected), name
    status, answer = await api.call("GET", f"/api/v1/agents/mien?cwd={tmp_path}")
    assert (status, answer["detail"]) == (404, "there is no agent 'mien' (did you mean 'mine'?)")
    write(tmp_path, "other", "---\nname: mine\n---\nx")
    write(tmp_path, "x/third", "---\nname: mine\n---\nx")
    status, answer = await api.call("GET", f"/api/v1/agents/third?cwd={tmp_path}")
    assert (status, answer["id"]) == (200, ".claude:x:mine")
    status, answer = await api.call("GET", f"/api/v1/agents/other.md?cwd={tmp_path}")
    assert status == 404


async def test_a_name_held_twice_is_422_with_the_ids(api, tmp_path):
    for name in ("q/twin", "r/twin"):
        write(tmp_path, name)
    status, answer = await api.call("GET", f"/api/v1/agents/twin?cwd={tmp_path}")
    assert (status, answer["type"]) == (422, "urn:orchestr8d:unprocessable")
    assert answer["detail"] == "'twin' is more than one agent: .claude:q:twin, .claude:r:twin"


async def test_a_new_configuration_takes_effect(api, tmp_path):
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "x.md").write_text("x")
    assert (await api.call("GET", "/api/v1/agents/reviewer"))[0] == 404
    api.config = config.load(None, {
        "ORCHESTR8D_AGENTS__PATHS": f'["{tmp_path}/team"]', "ORCHESTR8D_AGENTS__ALIASES__REVIEWER": "team:x",
    })  # fmt: skip
    status, answer = await api.call("GET", "/api/v1/agents/reviewer")
    assert (status, answer["id"]) == (200, "team:x")


@pytest.mark.parametrize("cwd", ["relative", "", "%00", "/a%00b"])
async def test_a_directory_is_an_absolute_path(api, cwd):
    for path in ("/api/v1/agents", "/api/v1/agents/x"):
        status, answer = await api.call("GET", f"{path}?cwd={cwd}")
        assert (status, answer["errors"][0]["path"]) == (400, "cwd")


async def test_files_by_path_are_not_for_tokens_that_only_read(api, tmp_path):
    headers = {"Authorization": f"Bearer {await api.make_token(scope='read')}"}
    path = quote(str(write(tmp_path, "mine")), safe="")
    assert (await api.call("GET", f"/api/v1/agents/{path}", headers=headers))[0] == 403
    assert (await api.call("GET", f"/api/v1/agents/mine?cwd={tmp_path}", headers=headers))[0] == 200


async def test_a_batch_names_all_that_nobody_knows(api, monkeypatch):
    looked = []
    resolve = api.services.agents.resolve

    async def counted(name, cwd):
        looked.append(name)
        return await resolve(name, cwd)

    monkeypatch.setattr(api.services.agents, "resolve", counted)
    known, unknown = ({"agent": name, "prompt": "p"} for name in ("code-reviewer", "code-reviewr"))
    gone = known | {"options": {"resume_from": "01900000-0000-7000-8000-000000000009"}}
    tasks = [known, unknown, gone, unknown] + [unknown] * 50
    status, answer = await api.call("POST", "/api/v1/tasks:batch", {"tasks": tasks})
    paths = ["tasks[1].agent", "tasks[2].options.resume_from", "tasks[3].agent"]
    assert (status, [fault["path"] for fault in answer["errors"]][:3], len(answer["errors"])) == (422, paths, 53)
    assert "did you mean 'code-reviewer'" in answer["errors"][0]["message"]
    # Each look at the disk for a name that is not there takes as long as the disk does.
    assert sorted(looked) == ["code-reviewer", "code-reviewr"]


async def test_faults_of_both_kinds_are_listed_together(api):
    gone = "01900000-0000-7000-8000-000000000009"
    bad = {"agent": "no-such", "prompt": "p", "options": {"max_turns": 0, "resume_from": gone}}
    status, answer = await api.call("POST", "/api/v1/tasks", bad)
    paths = {fault["path"] for fault in answer["errors"]}
    assert (status, paths) == (400, {"options.max_turns", "agent", "options.resume_from"})
    bad = {"agent": "no-such", "prompt": "p", "options": {"delay": 1, "run_at": "x"}}
    where_else = {"agent": "no-such", "prompt": "p", "cwd": "relative"}
    status, answer = await api.call("POST", "/api/v1/tasks:batch", {"tasks": [bad, bad | {"options": {}}, where_else]})
    paths = {fault["path"] for fault in answer["errors"]}
    expected = {"tasks[0].options.delay", "tasks[0].options.run_at", "tasks[0].agent", "tasks[1].agent", "tasks[2].cwd"}
    assert (status, paths) == (400, expected)
