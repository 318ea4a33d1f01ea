"""Random definitions, and smaller ones of one that shows a fault."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

PARAMS: dict[str, Any] = {"yes": True, "no": False, "text": "t", "none": [], "two": [1, 2], "four": [1, 2, 3, 4]}
_TYPES = {bool: "boolean", str: "string", list: "list"}
Raw = dict[str, Any]
SIGNALS = ("go", "ready")


def definition(chance: random.Random, *, live: bool = False) -> Raw:
    """`live`: for a daemon, where nobody pauses or answers and tasks end in an order that nobody knows. What it comes
    to does not depend on that: at most one phase runs again, and a phase with a `when` has its tasks' dependencies."""
    return _Making(chance, live).definition()


def complete(raw: Raw) -> Raw:
    """With a name and with the parameters that expressions may name."""
    params = {name: {"type": _TYPES[type(value)], "default": value} for name, value in PARAMS.items()}
    return {"name": "random", "params": params, **raw}


class _Making:
    def __init__(self, chance: random.Random, live: bool) -> None:
        self._chance = chance
        self._live = live
        # Whether something bounds how many run at once, which is asked before a fan's `when`.
        self._narrow = chance.random() < 0.3
        # Of a live one: the phase that may run again.
        self._root: str | None = None

    def _one_in(self, n: float) -> bool:
        return self._chance.random() < 1 / n

    def definition(self) -> Raw:
        chance = self._chance
        raw: Raw = complete({"phases": []})
        names = [f"p{n}" for n in range(chance.choice([1, 2, 2, 3, 3, 4, 5]))]
        tasks: list[str] = []
        done: list[str] = []
        for name in names:
            phase: Raw = {"id": name}
            before = [*done, *tasks]
            phase["depends_on"] = [] if not before or self._one_in(4) else self._some(done, 2) + self._some(tasks, 1, 4)
            if self._one_in(5):
                phase["when"] = self._when([t for t in tasks if t in phase["depends_on"]], of_phase=True)
            if self._narrow and self._one_in(4):
                phase["max_parallel"] = chance.randint(1, 2)
            phase["tasks"] = []
            self._sheltered = self._live and "when" in phase
            for _ in range(chance.choice([0, 1, 1, 2, 2, 3, 4])):
                task = f"t{len(tasks)}"
                phase["tasks"].append(self._task(task, name, [t["id"] for t in phase["tasks"]], done, tasks))
                tasks.append(task)
            done.append(name)
            raw["phases"].append(phase)
        if not tasks:
            raw["phases"][0]["tasks"] = [self._command("t0")]
        if self._one_in(3):
            # Where they stand is no order.
            chance.shuffle(raw["phases"])
        if self._one_in(3):
            raw["on_failure"] = [self._command(f"r{n}") for n in range(chance.randint(1, 3))]
            if self._one_in(2):
                raw["on_cancel"] = "rollback"
        if self._narrow and self._one_in(2):
            raw["max_parallel"] = chance.randint(1, 3)
        if self._one_in(12) and not self._live:
            raw["fail_fast"] = True
        return raw

    def _some(self, names: list[str], most: int, one_in: float = 1) -> list[str]:
        if not names or not self._one_in(one_in):
            return []
        return self._chance.sample(names, min(len(names), self._chance.randint(1, most)))

    def _task(self, name: str, phase: str, within: list[str], phases: list[str], tasks: list[str]) -> Raw:
        chance = self._chance
        needs = self._some(within, 2, 1.7)
        if not self._sheltered:
            needs += self._some([t for t in tasks if t not in within], 2, 5)
            needs = list(dict.fromkeys(needs + self._some(phases, 1, 12)))
        seen = [n for n in needs if n.startswith("t")]
        kind = chance.choices(["command", "fan", "approval"], [12, 3, 0 if self._live else 2])[0]
        task = self._command(name)
        if kind == "approval":
            task = {"id": name, "approval": "Well?"}
            if self._one_in(2):
                task |= {"timeout": f"{chance.choice([2, 9])}s", "on_timeout": chance.choice(["fail", "approve"])}
        task["depends_on"] = needs
        if kind == "fan":
            lists = ["params.two", "params.two", "params.four", "params.none", "params.yes"]
            task["for_each"] = chance.choice(lists + [f"tasks.{t}.output" for t in seen] * 2)
            if self._narrow and self._one_in(3):
                task["max_parallel"] = chance.randint(1, 2)
        if self._one_in(5) and not (kind == "fan" and self._narrow):
            task["when"] = "index != 1" if kind == "fan" and self._one_in(2) else self._when(seen)
        draw = chance.random()
        if draw < 0.15:
            task["on_failure"] = "continue"
        elif draw < 0.35:
            task["on_failure"] = {"retry_phase": phase, "max": chance.randint(1, 2)}
        elif draw < 0.5 and phases:
            # Refused where the phase does not come before: see `mended`.
            task["on_failure"] = {"retry_phase": chance.choice(phases), "max": chance.randint(1, 2)}
        if self._live and isinstance(task.get("on_failure"), dict):
            self._root = self._root or task["on_failure"]["retry_phase"]
            task["on_failure"]["retry_phase"] = self._root
        if not self._live:
            if self._one_in(10):
                task["wait_for"] = self._some(list(SIGNALS), 2)
                if self._one_in(2):
                    task["wait_timeout"] = f"{chance.choice([1, 8])}s"
            if self._one_in(12):
                task["not_before"] = f"+{chance.choice([1, 6, 20])}s"
        return task

    def _command(self, name: str) -> Raw:
        plain = not self._live and self._one_in(2)
        return {"id": name, "command": ["true", "plain" if plain else "{{ round }}"]}

    def _when(self, seen: list[str], of_phase: bool = False) -> str:
        forms = ["params.yes", "params.no", "round < 1", "params.text.nothing"]
        forms += [f"tasks.{t}.status == '{s}'" for t in seen for s in ("completed", "failed", "skipped")]
        return self._chance.choice(forms)


def smaller(raw: Raw) -> Iterator[Raw]:
    """Definitions with one thing less."""
    for n, phase in enumerate(raw["phases"]):
        ids = {phase["id"], *(t["id"] for t in phase["tasks"])}
        yield _without(raw, ids, n, None)
        for m, task in enumerate(phase["tasks"]):
            yield _without(raw, {task["id"]}, n, m)
    for name in ("on_failure", "on_cancel", "max_parallel", "fail_fast"):
        if name in raw:
            yield {key: value for key, value in raw.items() if key != name}
    for n, phase in enumerate(raw["phases"]):
        for where in (None, *range(len(phase["tasks"]))):
            one = phase if where is None else phase["tasks"][where]
            for name in [k for k in one if k not in ("id", "tasks", "command", "approval", "depends_on")]:
                made = copy.deepcopy(raw)
                target = made["phases"][n] if where is None else made["phases"][n]["tasks"][where]
                del target[name]
                yield made
            for k in range(len(one.get("depends_on", ()))):
                made = copy.deepcopy(raw)
                target = made["phases"][n] if where is None else made["phases"][n]["tasks"][where]
                del target["depends_on"][k]
                yield made


def _without(raw: Raw, ids: set[str], phase: int, task: int | None) -> Raw:
    made = copy.deepcopy(raw)
    if task is None:
        del made["phases"][phase]
    else:
        del made["phases"][phase]["tasks"][task]
    for one in made["phases"]:
        for part in (one, *one["tasks"]):
            part["depends_on"] = [name for name in part.get("depends_on", ()) if name not in ids]
    return made
