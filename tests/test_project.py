"""The files beside the code say the truth: the example configuration, the Makefile, the README, the units."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from orchestr8d import config

ROOT = Path(__file__).parent.parent
EXAMPLE = (ROOT / "config.example.toml").read_text()
UNITS = ["orchestr8d.service", "orchestr8d@.service"]


def test_the_example_configuration_is_the_defaults() -> None:
    assert config.load(ROOT / "config.example.toml", {}) == config.load(None, {})


def test_the_example_has_every_key_once_each_with_a_sentence(tmp_path: Path) -> None:
    found: dict[str, str] = {}
    section, above, live = "", "", []
    for line in EXAMPLE.splitlines():
        header = re.fullmatch(r"(# )?(\[{1,2})([a-z._]+)\]{1,2}", line)
        key = re.fullmatch(r"(# )?([A-Za-z_]+) = .+", line)
        if header:
            section = re.sub(r"^(queues|budgets|users|claude\.accounts)\.[a-z]+", r"\1.NAME", header[3])
            live.append(line.removeprefix("# "))
        elif key:
            name = f"{section}.{'NAME' if section.endswith(('env', 'aliases')) else key[2]}"
            # There are two schedules: one has a task, the other a workflow.
            assert name not in found or section == "schedules", f"{name} stands there twice"
            found[name] = above
            live.append(line.removeprefix("# "))
        above = line
    assert found.keys() == {".".join(k) for k in config.every_key()}
    assert [n for n, sentence in found.items() if not re.fullmatch(r"# [A-Z\"].*[.;].*|# .*\.", sentence)] == []
    # The keys that stand in comments have values that would be taken.
    (tmp_path / "all.toml").write_text("\n".join(live))
    config.load(tmp_path / "all.toml", {})


def test_keys_with_a_fixed_default_are_no_comments() -> None:
    defaults = tomllib.loads(EXAMPLE)

    def flat(node: dict[str, Any], at: str = "") -> set[str]:
        return {n for k, v in node.items() for n in (flat(v, f"{at}{k}.") if isinstance(v, dict) else {f"{at}{k}"})}

    commented = {".".join(k) for k in config.every_key()} - flat(defaults)
    assert commented == {
        "server.socket", "server.base_url", "store.url", "executor.concurrency",
        "queues.NAME.limit", "queues.NAME.rate", "queues.NAME.paused",
        "runners.claude.concurrency", "runners.claude.mcp_config", "runners.claude.env.NAME", "agents.aliases.NAME",
        "claude.accounts.NAME.env.NAME", "claude.accounts.NAME.concurrency",
        "budgets.NAME.usd", "budgets.NAME.tokens", "budgets.NAME.per", "budgets.NAME.on_exceed",
        "users.NAME.notify", "users.NAME.types", "users.NAME.quiet_hours", "users.NAME.timezone",
        "hooks.event", "hooks.tool_name", "hooks.cwd", "hooks.prompt", "hooks.debounce", "hooks.task",
        "schedules.name", "schedules.schedule", "schedules.timezone", "schedules.task", "schedules.workflow",
        "schedules.catch_up", "schedules.catch_up_window", "schedules.overlap", "schedules.jitter", "schedules.active",
    }  # fmt: skip


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_makefile_has_its_targets_and_help_lists_them() -> None:
    assert targets() == {"run", "test", "check", "bench", "torture", "help"}
    said = subprocess.run(["make", "-C", str(ROOT), "-s"], capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in said.splitlines() if not line.startswith("make")} == targets()


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-C", str(ROOT), "-s", *arguments], capture_output=True, text=True, check=False)


def test_makefile_names_what_the_machine_lacks(tmp_path: Path) -> None:
    said = make("python", "PYTHON=false")
    assert said.returncode != 0 and "apt-get install python3 python3-venv" in said.stderr
    # Nobody but root has packages installed for them.
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    said = make("test-tools", "TEST_TOOLS=no-such-tool:its-package sh:dash", f"PATH={tmp_path}:{os.environ['PATH']}")
    assert said.returncode != 0 and said.stderr.startswith("the tests need; on Debian: apt-get install its-package\n")


def test_documents_name_only_targets_that_exist() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), ROOT / ".ci" / "run"]:
        named = set(re.findall(r"(?:^ *(?:\$ )?|`)make ([a-z]+)\b", path.read_text(), re.MULTILINE))
        assert named <= targets(), path
    readme = (ROOT / "README.md").read_text()
    assert "make run" in readme and "make test" in readme


def test_links_between_documents_lead_somewhere() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"


def test_every_document_of_a_setting_names_it() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert [k for k in config.every_key() if f"`{k[-1]}`" not in text] == []


@pytest.mark.parametrize("name", UNITS)
def test_units_say_what_the_daemon_relies_on(name: str) -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=True, delimiters="=", comment_prefixes="#")
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys are case-sensitive
    unit.read(ROOT / "systemd" / name)
    service = dict(unit["Service"])
    assert service["Type"] == "notify" and service["WatchdogSec"]
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert (service["KillMode"], service["OOMPolicy"], service["Restart"]) == ("process", "continue", "on-failure")
    assert service.get("User") == ("%i" if "@" in name else None)
    # What a node, a git or a sandbox in a home directory does not survive.
    assert not service.keys() & {
        "MemoryDenyWriteExecute", "ProtectHome", "PrivateTmp", "PrivateDevices", "RestrictNamespaces",
        "ProtectKernelTunables", "ProtectProc", "ProcSubset", "RestrictSUIDSGID", "DynamicUser",
    }  # fmt: skip
    assert unit["Install"]["WantedBy"] == ("multi-user.target" if "@" in name else "default.target")


def test_ci_is_executable_and_strict() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    body = script.read_text()
    assert body.startswith("#!/usr/bin/env bash\n") and "set -euo pipefail" in body
    assert body.index("make check") < body.index("make test")
