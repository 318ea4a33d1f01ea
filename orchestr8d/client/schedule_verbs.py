"""The verbs about schedules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestr8d.client import schedule_requests as requests
from orchestr8d.client.schedule_requests import Rule
from orchestr8d.client.transport import Many, One, Text, Transport


class ScheduleVerbs(Transport[One, Many, Text]):
    """A schedule goes by its name or its id."""

    def add_schedule(
        self,
        name: str,
        schedule: Rule,
        *,
        task: Mapping[str, object] | None = None,
        workflow: Mapping[str, object] | None = None,
        timezone: str | None = None,
        idempotency_key: str | None = None,
        **fields: object,
    ) -> One:
        """Starts `task` (as a submit takes it) or `workflow` (as a start takes it) whenever the rule is due: `"0 9 * *
        MON"`, `"@every 10m"`, `{"at": TIME}`. More fields by their names: `overlap="queue"`, `catch_up="one"`."""
        body: dict[str, object] = {"name": name, "schedule": schedule, "task": task, "workflow": workflow}
        return self._one(requests.add(body | {"timezone": timezone, **fields}, self._key(idempotency_key)))

    def add_schedules(self, schedules: Iterable[Mapping[str, object]], *, idempotency_key: str | None = None) -> Many:
        """Makes many, all or none, each with its fields by their names."""
        return self._many(requests.add_many(schedules, self._key(idempotency_key)), "schedules")

    def schedules(self, q: str | None = None) -> Many:
        """All schedules whose names have `q` in them, newest first."""
        return self._many(requests.schedules(1000, q=q), "schedules")

    def schedule_page(self, q: str | None = None, limit: int = 50, cursor: str | None = None) -> One:
        """One page of them: `{"schedules": […], "next_cursor"}`."""
        return self._one(requests.schedules(limit, cursor, q))

    def schedule(self, name: str) -> One:
        """A schedule, with its `next_runs`."""
        return self._one(requests.schedule(name))

    def change_schedule(self, name: str, /, **changes: object) -> One:
        """Any of the fields that `add_schedule` takes, `name` included; a task takes the place of a workflow."""
        return self._one(requests.change(name, changes))

    def pause_schedule(self, name: str) -> One:
        """Nothing is due until it is resumed."""
        return self._one(requests.steer(name, "pause"))

    def resume_schedule(self, name: str) -> One:
        """It goes on from now: what would have been due meanwhile is not."""
        return self._one(requests.steer(name, "resume"))

    def trigger_schedule(self, name: str, *, idempotency_key: str | None = None) -> One:
        """Fires it now: `{"state", "task_id", "workflow_id", "reason", …}`."""
        return self._one(requests.trigger(name, self._key(idempotency_key)))

    def remove_schedule(self, name: str) -> One:
        """What it has started goes on."""
        return self._one(requests.remove(name))

    def schedule_history(self, name: str, limit: int = 50, cursor: str | None = None) -> One:
        """One page of what became of its due times: `{"firings": […], "next_cursor"}`."""
        return self._one(requests.history(name, limit, cursor))

    def preview_schedule(
        self, schedule: Rule, timezone: str | None = None, after: str | None = None, count: int | None = None
    ) -> One:
        """When a rule would be due: `{"runs": […], "words"}`."""
        return self._one(requests.preview(schedule, timezone, after, count))
