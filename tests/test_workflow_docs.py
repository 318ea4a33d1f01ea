"""The pages about workflows: what they show can be started, and the gallery is that of the templates."""

from __future__ import annotations

import re

from orchestr8d.core import definition, yaml_text
from orchestr8d.core.definition import Bounds
from orchestr8d.core.submit import Policy
from tests import gallery


def test_the_gallery_is_up_to_date() -> None:
    assert gallery.PAGE.read_text() == gallery.page(), "run `python -m tests.gallery`"


def test_what_is_shown_can_be_started() -> None:
    shown = re.findall(r"^```yaml\n(.*?)^```", (gallery.PAGE.parent / "workflows.md").read_text(), re.S | re.M)
    assert len(shown) >= 6
    for text in shown:
        raw = yaml_text.read(text.encode())
        params = {name: "x" for name, param in raw.get("params", {}).items() if param.get("required")}
        checked = definition.check(raw, params, Policy(in_workflow=True), Bounds(5000, 1000))
        assert not checked.faults, (raw["name"], checked.faults)
