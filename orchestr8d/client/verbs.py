"""The verbs that are one request each, written once: a transport says how a request becomes an answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from orchestr8d.client import requests
from orchestr8d.client.requests import DeliveryQuery, NoticeQuery, TaskQuery
from orchestr8d.client.schedule_verbs import ScheduleVerbs
from orchestr8d.client.transport import Many, One, Text
from orchestr8d.client.workflow_verbs import WorkflowVerbs


class Verbs(WorkflowVerbs[One, Many, Text], ScheduleVerbs[One, Many, Text]):
    """Every verb raises ApiError when the daemon refuses, and NoDaemon when there is none."""

    def submit(
        self,
        command: Sequence[str] | None = None,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        options: Mapping[str, object] | None = None,
        agent: str | None = None,
        prompt: str | None = None,
        idempotency_key: str | None = None,
    ) -> One:
        """Hands a task over; `{"task_id", "status", …}` once it is on disk. `command` is argv, no shell."""
        task = {"command": command, "cwd": cwd, "env": env, "stdin": stdin, "options": options}
        key = self._key(idempotency_key)
        return self._one(requests.submit({**task, "agent": agent, "prompt": prompt}, key))

    def submit_agent(
        self,
        agent: str,
        prompt: str,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        **options: object,
    ) -> One:
        """Gives `prompt` to an agent, in `cwd` (the caller's). Options of the task by their names: `model="opus"`."""
        return self.submit(
            agent=agent, prompt=prompt, cwd=cwd or str(Path.cwd()), env=env, options=options,
            idempotency_key=idempotency_key,
        )  # fmt: skip

    def continue_(
        self, task_id: str, prompt: str, options: Mapping[str, object] | None = None, *,
        idempotency_key: str | None = None,
    ) -> One:  # fmt: skip
        """Says more to the agent of a task that has ended: a new task, in the same conversation. `options`: those that
        shall differ. Answers like `submit`."""
        return self._one(requests.continue_(task_id, prompt, options, self._key(idempotency_key)))

    def submit_many(self, tasks: Iterable[Mapping[str, object]], *, idempotency_key: str | None = None) -> Many:
        """Up to 1,000 tasks (documents as the API takes them), all or none; answers in the same order."""
        return self._many(requests.submit_many(tasks, self._key(idempotency_key)), "tasks")

    def task(self, task_id: str) -> One:
        """All that is known of a task, with its attempts."""
        return self._one(requests.task(task_id))

    def status(self, task_id: str, wait: float | None = None, until_final: bool = False) -> One:
        """The short status. `wait`: up to that many seconds for a change, or for the final state."""
        return self._one(requests.status(task_id, wait, until_final))

    def result(self, task_id: str) -> One:
        """What a finished task left; ApiError 409 while it is not finished."""
        return self._one(requests.result(task_id))

    def task_page(self, limit: int = 50, cursor: str | None = None, **query: Unpack[TaskQuery]) -> One:
        """One page of tasks, newest first: `{"tasks": […], "next_cursor"}`."""
        return self._one(requests.tasks(limit, cursor, **query))

    def cancel(self, task_id: str, *, wait: bool = True) -> One:
        """Ends a task; with `wait` the answer comes when its processes are gone."""
        return self._one(requests.cancel(task_id, wait))

    def retry(self, task_id: str, *, idempotency_key: str | None = None) -> One:
        """A failed or cancelled task as a new one; answers like `submit`."""
        return self._one(requests.retry(task_id, self._key(idempotency_key)))

    def edit(self, task_id: str, changes: Mapping[str, object]) -> One:
        """Changes a task that has not started: fields as in `submit`, of `options` those that change."""
        return self._one(requests.edit(task_id, changes))

    def pause(self, task_id: str) -> One:
        return self._one(requests.pause(task_id))

    def resume(self, task_id: str) -> One:
        return self._one(requests.resume(task_id))

    def set_priority(self, task_id: str, priority: str | int) -> One:
        return self._one(requests.set_priority(task_id, priority))

    def progress(
        self, percent: float | None = None, current_step: str | None = None, *, task_id: str | None = None
    ) -> One:
        """Reports how far a task is; inside a task `task_id` is that task."""
        return self._one(requests.progress(task_id or os.environ["ORCHESTR8_TASK_ID"], percent, current_step))

    def queues(self) -> Many:
        return self._many(requests.queues(), "queues")

    def set_queue(self, name: str, **changes: object) -> One:
        """`limit` (None: no limit) and `rate` (such as "30/m") of a queue, which is made if it is new."""
        return self._one(requests.set_queue(name, changes))

    def pause_queue(self, name: str) -> One:
        return self._one(requests.pause_queue(name))

    def resume_queue(self, name: str) -> One:
        return self._one(requests.resume_queue(name))

    def limits(self) -> One:
        """What holds agents' tasks back: `{"accounts", "breaker", "budgets", "parked", "summary"}`."""
        return self._one(requests.limits())

    def open_account(self, name: str) -> One:
        """Opens an account that is closed or limited; answers like `limits`."""
        return self._one(requests.open_account(name))

    def executors(self) -> Many:
        return self._many(requests.executors(), "executors")

    def agents(self, cwd: str | None = None) -> Many:
        """The agents that a task in `cwd` can name, by id."""
        return self._many(requests.agents(cwd), "agents")

    def agent(self, name: str, cwd: str | None = None) -> One:
        """What a name means to a task in `cwd`, and what of its file is `ignored`; ApiError 404 or 422."""
        return self._one(requests.agent(name, cwd))

    def send_notification(
        self,
        user_id: str,
        notification_type: str,
        message: str,
        *,
        title: str | None = None,
        priority: str | None = None,
        workflow_id: str | None = None,
        task_id: str | None = None,
        metadata: Mapping[str, object] | None = None,
        idempotency_key: str | None = None,
    ) -> One:
        """Tells a user something: `{"notification_id"}` once it is on disk."""
        fields = {
            "user_id": user_id, "notification_type": notification_type, "message": message, "title": title,
            "priority": priority, "workflow_id": workflow_id, "task_id": task_id, "metadata": metadata,
        }  # fmt: skip
        return self._one(requests.send_notification(fields, self._key(idempotency_key)))

    def get_notifications(self, **query: Unpack[NoticeQuery]) -> Many:
        """All notifications that match, newest first."""
        return self._many(requests.notifications(1000, **query), "notifications")

    def notification_page(self, limit: int = 50, cursor: str | None = None, **query: Unpack[NoticeQuery]) -> One:
        """One page of them: `{"notifications": […], "next_cursor"}`."""
        return self._one(requests.notifications(limit, cursor, **query))

    def notification(self, notification_id: str) -> One:
        """A notification, and what became of it on each of its `channels`."""
        return self._one(requests.notification(notification_id))

    def ack_notification(self, notification_id: str) -> One:
        return self._one(requests.ack_notification(notification_id))

    def ack_notifications(self, user_id: str | None = None) -> One:
        """Acknowledges all, or all of a user: `{"count"}`."""
        return self._one(requests.ack_notifications(user_id))

    def add_webhook(
        self,
        url: str,
        events: Sequence[str],
        *,
        secret: str | None = None,
        user_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> One:
        """Subscribes a URL to events; `{"webhook_id", "secret"}`: the secret stands in this one answer."""
        fields = {"url": url, "events": events, "secret": secret, "user_id": user_id, "headers": headers}
        return self._one(requests.add_webhook(fields, self._key(idempotency_key)))

    def webhooks(self) -> Many:
        return self._many(requests.webhooks(), "webhooks")

    def webhook(self, webhook_id: str) -> One:
        return self._one(requests.webhook(webhook_id))

    def change_webhook(self, webhook_id: str, **changes: object) -> One:
        """Any of `url`, `events`, `user_id`, `headers`."""
        return self._one(requests.change_webhook(webhook_id, changes))

    def pause_webhook(self, webhook_id: str) -> One:
        return self._one(requests.steer_webhook(webhook_id, "pause"))

    def resume_webhook(self, webhook_id: str) -> One:
        return self._one(requests.steer_webhook(webhook_id, "resume"))

    def test_webhook(self, webhook_id: str) -> One:
        """Sends `webhook.test`; answers with its delivery."""
        return self._one(requests.steer_webhook(webhook_id, "test"))

    def rotate_secret(self, webhook_id: str) -> One:
        """A new secret, `{"secret"}`; the old one signs beside it for 24 hours."""
        return self._one(requests.steer_webhook(webhook_id, "rotate-secret"))

    def remove_webhook(self, webhook_id: str) -> One:
        return self._one(requests.remove_webhook(webhook_id))

    def delivery_page(self, limit: int = 50, cursor: str | None = None, **query: Unpack[DeliveryQuery]) -> One:
        """One page of deliveries, newest first: `{"deliveries": […], "next_cursor"}`."""
        return self._one(requests.deliveries(limit, cursor, **query))

    def delivery(self, delivery_id: str) -> One:
        return self._one(requests.delivery(delivery_id))

    def redeliver(self, delivery_id: str) -> One:
        """Sends a delivery again; answers with it."""
        return self._one(requests.redeliver(delivery_id))

    def redeliver_all(self, **query: Unpack[DeliveryQuery]) -> One:
        """Sends all that match again: `{"count"}`."""
        return self._one(requests.redeliver_all(**query))

    def create_token(
        self,
        name: str,
        scope: str,
        *,
        user_id: str | None = None,
        runners: Sequence[str] | None = None,
        agents: Sequence[str] | None = None,
        expires: str | None = None,
        idempotency_key: str | None = None,
    ) -> One:
        """A new token; its text stands in this one answer and nowhere else."""
        fields = {
            "name": name, "scope": scope, "user_id": user_id, "runners": runners, "agents": agents, "expires": expires,
        }  # fmt: skip
        return self._one(requests.create_token(fields, self._key(idempotency_key)))

    def tokens(self) -> Many:
        """All tokens, without their text."""
        return self._many(requests.tokens(), "tokens")

    def revoke_token(self, token_id: str) -> One:
        return self._one(requests.revoke_token(token_id))

    def health(self) -> One:
        """How the daemon is: its own account, open to everybody."""
        return self._one(requests.health())
