"""Templates over HTTP: the list with its parameters, one with its definition, and what a user has put there."""

import msgspec

from orchestr8d.templates import BUILT_IN


def use(api, *paths):
    api.config = msgspec.structs.replace(
        api.config, workflows=msgspec.structs.replace(api.config.workflows, paths=list(map(str, paths)))
    )


async def test_list_and_definition(api, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nparams: {n: {default: 1, enum: [1, 2]}}\nphases: [{id: one}]\n")
    (tmp_path / "bad.yaml").write_text("name: [\n")
    use(api, tmp_path)
    status, answer = await api.call("GET", "/api/v1/templates")
    assert (status, answer["next_cursor"]) == (200, None)
    assert [line.split(": ")[0] for line in answer["ignored"]] == [str(tmp_path / "bad.yaml")]
    listed = {one["name"]: one for one in answer["templates"]}
    assert len(listed) == 10
    mine = {
        "name": "mine", "description": "", "phases": ["one"],
        "params": {"n": {"type": "integer", "required": False, "default": 1, "enum": [1, 2], "description": None}},
    }  # fmt: skip
    assert listed["mine"] == mine
    for one in listed.values():
        status, shown = await api.call("GET", f"/api/v1/templates/{one['name']}")
        assert status == 200 and {key: shown[key] for key in one} == one
        assert [phase["id"] for phase in shown["definition"]["phases"]] == one["phases"]
        assert one["name"] == "mine" or shown["path"] == str(BUILT_IN / f"{one['name']}.yaml")
    _, page = await api.call("GET", "/api/v1/templates?limit=4")
    _, rest = await api.call("GET", f"/api/v1/templates?cursor={page['next_cursor']}")
    assert [one["name"] for one in page["templates"] + rest["templates"]] == sorted(listed)


async def test_an_unknown_one_is_404_with_a_near_name(api):
    status, answer = await api.call("GET", "/api/v1/templates/deplyo")
    assert (status, answer["detail"]) == (404, "there is no template 'deplyo' (did you mean 'deploy'?)")
