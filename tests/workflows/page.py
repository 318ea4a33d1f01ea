"""The page about workflows, whose snippets tests run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from orchestr8d.core import yaml_text

TEXT = (Path(__file__).parents[2] / "docs" / "workflows.md").read_text()
INSIDE = TEXT.partition("\n## Inside a task\n")[2].partition("\n## ")[0]
PATTERNS = TEXT.partition("\n## Patterns\n")[2]


def definition(name: str) -> dict[str, Any]:
    """The one of that name."""
    read = [yaml_text.read(text.encode()) for text in re.findall(r"^```yaml\n(.*?)^```", TEXT, re.S | re.M)]
    [found] = [one for one in read if one["name"] == name]
    return found  # type: ignore[no-any-return]
