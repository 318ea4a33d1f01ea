"""The verbs about workflows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

from orchestr8d.client import workflow_requests as requests
from orchestr8d.client.transport import Many, One, Text, Transport
from orchestr8d.client.workflow_requests import Picture, WorkflowQuery


class WorkflowVerbs(Transport[One, Many, Text]):
    """Where a workflow's id may be left out it is, inside a task, that task's workflow."""

    def start_workflow(
        self,
        template: str | None = None,
        params: Mapping[str, object] | None = None,
        *,
        definition: Mapping[str, object] | None = None,
        name: str | None = None,
        cwd: str | None = None,
        idempotency_key: str | None = None,
        **fields: object,
    ) -> One:
        """Starts a workflow of a template or of a definition, in `cwd` (the caller's); `{"workflow_id", …}` once it is
        on disk. More fields by their names: `priority="high"`, `max_cost_usd=5`, `dry_run=True`. With a `name` only:
        one without phases, to which they are added."""
        body: dict[str, object] = {"template": template, "definition": definition, "name": name, "params": params}
        body |= {"cwd": cwd or str(Path.cwd()), **fields}
        return self._one(requests.start(body, self._key(idempotency_key)))

    def workflow(self, workflow_id: str | None = None) -> One:
        """All that is known of a workflow but its tasks."""
        return self._one(requests.workflow(_own(workflow_id)))

    def workflows(self, **query: Unpack[WorkflowQuery]) -> Many:
        """All workflows that match, newest first."""
        return self._many(requests.workflows(1000, **query), "workflows")

    def workflow_page(self, limit: int = 50, cursor: str | None = None, **query: Unpack[WorkflowQuery]) -> One:
        """One page of them: `{"workflows": […], "next_cursor"}`."""
        return self._one(requests.workflows(limit, cursor, **query))

    def workflow_status(
        self, workflow_id: str | None = None, wait: float | None = None, until_final: bool = False
    ) -> One:
        """How it stands, with its phases. `wait`: up to that many seconds for its status to change, or to be final."""
        return self._one(requests.status(_own(workflow_id), wait, until_final))

    def workflow_tasks(self, workflow_id: str | None = None) -> Many:
        """Its tasks in the definition's order, with their results; of each the latest round."""
        return self._many(requests.tasks(_own(workflow_id)), "tasks")

    def workflow_graph(self, workflow_id: str | None = None) -> One:
        """`{"nodes", "edges"}`."""
        return self._one(requests.graph(_own(workflow_id), "json"))

    def workflow_picture(self, picture: Picture, workflow_id: str | None = None) -> Text:
        """The graph as text for Mermaid or Graphviz, or as SVG."""
        return self._text(requests.graph(_own(workflow_id), picture))

    def workflow_report(self, workflow_id: str | None = None) -> Text:
        """What was asked and done, and the answer, in Markdown."""
        return self._text(requests.report(_own(workflow_id)))

    def begin_workflow(self, workflow_id: str) -> One:
        """Starts a workflow that was made without phases."""
        return self._one(requests.steer(workflow_id, "start"))

    def pause_workflow(self, workflow_id: str) -> One:
        """Nothing more starts; what runs goes on."""
        return self._one(requests.steer(workflow_id, "pause"))

    def resume_workflow(self, workflow_id: str) -> One:
        return self._one(requests.steer(workflow_id, "resume"))

    def cancel_workflow(self, workflow_id: str) -> One:
        """Ends it; answers when what ran is gone."""
        return self._one(requests.steer(workflow_id, "cancel"))

    def retry_workflow(self, workflow_id: str, from_phase: str | None = None) -> One:
        """What failed or was cancelled runs again, or a phase and all that follows; what is completed is kept."""
        return self._one(requests.retry(workflow_id, from_phase))

    def signal(self, name: str, payload: object = None, *, workflow_id: str | None = None) -> One:
        """Sends a signal; tasks that wait for it, now or later, see its payload."""
        return self._one(requests.signal(_own(workflow_id), name, payload))

    def approve(self, workflow_id: str, task: str, comment: str | None = None) -> One:
        """Says yes to what a task asks; `task` is its local id."""
        return self._one(requests.answer(workflow_id, task, "approve", comment))

    def reject(self, workflow_id: str, task: str, comment: str | None = None) -> One:
        return self._one(requests.answer(workflow_id, task, "reject", comment))

    def add_phase(
        self, phase: Mapping[str, object], *, workflow_id: str | None = None, idempotency_key: str | None = None
    ) -> One:
        """Adds a phase, as a definition has it."""
        return self._one(requests.add_phase(_own(workflow_id), phase, self._key(idempotency_key)))

    def add_tasks(
        self,
        tasks: Sequence[Mapping[str, object]],
        *,
        workflow_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Many:
        """Adds tasks, all or none, each as a definition has it and with its `phase`."""
        return self._many(requests.add_tasks(_own(workflow_id), tasks, self._key(idempotency_key)), "tasks")

    def add_milestone(self, text: str, *, workflow_id: str | None = None) -> One:
        return self._one(requests.add_milestone(_own(workflow_id), text))

    def templates(self) -> Many:
        """What can be started by name, with its parameters."""
        return self._many(requests.templates(), "templates")

    def template(self, name: str) -> One:
        """One of them, with its `definition`."""
        return self._one(requests.template(name))

    def archive_page(self, q: str | None = None, limit: int = 50, cursor: str | None = None) -> One:
        """Finished workflows, newest first; `q` is looked for in their reports."""
        return self._one(requests.archive(limit, cursor, q))

    def archived(self, workflow_id: str) -> One:
        """A finished workflow with its `report`."""
        return self._one(requests.archived(workflow_id))


def _own(workflow_id: str | None) -> str:
    found = workflow_id or os.environ.get("ORCHESTR8_WORKFLOW_ID")
    if not found:
        raise ValueError("which workflow? this is no task of one")
    return found
