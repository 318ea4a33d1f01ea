"""Workflows of a real daemon whose tasks write down themselves when they run, held against the model: the journal is
replayed in it, line by line."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

from tests.daemon import FINAL, Daemon
from tests.workflows.lives import new_definition, short
from tests.workflows.making import PARAMS, Raw
from tests.workflows.model import Model, Plan

# run.sh JOURNAL FAILS GIVES ROUND: fails in rounds before FAILS (of a fan: where its index is odd), gives a result.
SCRIPT = """\
echo "S $ORCHESTR8_TASK $4" >>"$1"
echo "$3"
status=0
case $ORCHESTR8_TASK in
  *.*[02468]) ;;
  *) [ "$4" -ge "$2" ] || status=1 ;;
esac
echo "E $ORCHESTR8_TASK $4" >>"$1"
exit $status
"""
GIVES = {"[1]": [1], "[1, 2, 3]": [1, 2, 3], "[]": [], "": None}
NEVER, ALWAYS = 0, 99


class Live:
    """A workflow, its journal, and what the model says of it."""

    def __init__(self, root: Path, seed: int) -> None:
        chance = random.Random(seed)
        self.seed = seed
        self.journal = root / f"{seed}.journal"
        script = root / "run.sh"
        script.write_text(SCRIPT)
        self.raw = new_definition(chance, live=True)
        self.commands: dict[str, Raw] = {}
        for task in [t for p in self.raw["phases"] for t in p["tasks"]] + self.raw.get("on_failure", []):
            fails = chance.choice([NEVER] * 8 + [1, 1, 2, ALWAYS])
            gives = chance.choice(list(GIVES))
            task["command"] = ["sh", str(script), str(self.journal), str(fails), gives, "{{ round }}"]
            if chance.random() < 0.15:
                task |= {"max_retries": 1, "retry_backoff": {"kind": "fixed", "base": 0.02, "jitter": False}}
            self.commands[task["id"]] = task
        self.body = {"definition": self.raw, "cwd": "/", "tags": [f"seed-{seed}"]}
        self.id = ""

    def plan(self, task_id: str, round_: int) -> tuple[str, Any]:
        name, _, index = task_id.partition(".")
        _, _, _, fails, gives, _ = self.commands[name]["command"]
        if round_ < int(fails) and not (index and int(index) % 2 == 0):
            return "failed", GIVES[gives]
        return "completed", GIVES[gives]

    def attempts(self, task_id: str, round_: int) -> int:
        """How often it runs in a round."""
        retries = self.commands[task_id.partition(".")[0]].get("max_retries", 0)
        return 1 + (retries if self.plan(task_id, round_)[0] == "failed" else 0)

    def expected(self, seed: int = 0) -> Model:
        model = Model(self.raw, PARAMS)
        plan: Plan = self.plan
        model.run(plan, random.Random(seed))
        return model

    def lines(self) -> list[tuple[str, str, int]]:
        text = self.journal.read_text() if self.journal.exists() else ""
        return [(what, name, int(round_)) for what, name, round_ in (line.split() for line in text.splitlines())]

    # -- what is wrong

    def faults(self, daemon: Daemon, *, kills: bool = False) -> list[str]:
        """With `kills` a run may have been broken off and done again."""
        found = self._against(self.expected(), daemon) + self._order(kills)
        ran = Counter((name, round_) for what, name, round_ in self.lines() if what == "S")
        for one in self.expected().runs:
            most = self.attempts(*one)
            if ran[one] < most or (ran[one] > most and not kills):
                found.append(f"{one} ran {ran[one]} times, and should {most}")
        found += [f"{one} ran, and should not" for one in ran - self.expected().runs if one not in self.expected().runs]
        shown = short(self.raw)
        return [f"seed {self.seed}: {fault}\n{shown}" for fault in found]

    def _against(self, model: Model, daemon: Daemon) -> list[str]:
        status = _get(daemon, f"/api/v1/workflows/{self.id}/status")
        tasks = _get(daemon, f"/api/v1/workflows/{self.id}/tasks")["tasks"]
        cut = {"cut": "failed"}
        # Whether what is cut off counts another round of others depends on which was first.
        ran = {name for name, _ in model.runs}
        found = {one["id"]: (one["status"], one["round"] if one["id"] in ran else None) for one in tasks}
        wanted = {t.id: (cut.get(t.state, t.state), t.round if t.id in ran else None) for t in model.tasks.values()}
        kinds = {one["id"]: (one["error"] or {}).get("kind") for one in tasks}
        faults = [
            f"{name} is {found.get(name)}, and should be {wanted.get(name)}"
            for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)
        ]  # fmt: skip
        faults += [
            f"{t.id} failed for {kinds.get(t.id)}, and should for {t.kind_of_error}"
            for t in model.tasks.values() if t.kind_of_error != kinds.get(t.id)
        ]  # fmt: skip
        if status["status"] != model.status:
            faults.append(f"the workflow is {status['status']}, and should be {model.status}")
        for phase in status["phases"]:
            state = model.phases[phase["id"]].state
            if phase["status"] != cut.get(state, state):
                faults.append(f"phase {phase['id']} is {phase['status']}, and should be {state}")
        return faults

    def _order(self, kills: bool) -> list[str]:
        """Each start is of a task that may run by then."""
        model = Model(self.raw, PARAMS)
        model.begin()
        ended: Counter[tuple[str, int]] = Counter()
        for what, name, round_ in self.lines():
            task = model.tasks.get(name)
            if what == "E":
                ended[name, round_] += 1
                if ended[name, round_] == self.attempts(name, round_):
                    model.finish(name, *self.plan(name, round_))
                    model.settle()
            elif kills and ended[name, round_] >= self.attempts(name, round_):
                continue  # its end was not known when it was started again
            elif task is None or (task.state, task.round) != ("open", round_):
                return [f"{name} ran in round {round_} out of its order: {task}"]
        return []


def _get(daemon: Daemon, path: str) -> Any:
    status, answer = daemon.request("GET", path)
    assert status == 200, answer
    return answer


def wait(daemon: Daemon, lives: list[Live], timeout: int = 60) -> None:
    for live in lives:
        answer = _get(daemon, f"/api/v1/workflows/{live.id}/status?until=final&wait={timeout}")
        assert answer["status"] in FINAL, f"seed {live.seed}: {answer}\n{short(live.raw)}"
