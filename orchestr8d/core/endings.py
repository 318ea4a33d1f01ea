"""What a task asks to be done when it ends: its forms and their faults, what is told, and the task that follows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET

from orchestr8d.core import addresses, patterns, redact
from orchestr8d.core.addresses import Allow
from orchestr8d.core.errors import Fault, did_you_mean
from orchestr8d.core.model import Result, Spec, Task
from orchestr8d.core.notices import NewNotice
from orchestr8d.core.states import TaskStatus
from orchestr8d.core.task_input import ActionIn, OnCompletion, Options, OptionsPatch, TaskIn

Stored = list[str | dict[str, Any]]
CheckTask = Callable[[TaskIn, list[Fault], str], None]

# So many tasks may follow from one another's ends.
MOST_FOLLOWS: Final = 100
# Of a task that follows, these are templates.
_TEMPLATES: Final = ("command", "prompt", "stdin", "env")
_WORDS: Final = ("notification", "callback_url", "none")
_PATHS: Final = ("/internal/", "/webhook/")
_NO_WORKFLOW: Final = "a signal goes to the task's own workflow, and it has none"
# A template sees so much of a result (the most that is kept as text), and may make as much of it.
_MOST_TEXT: Final = 1 << 20
_SHOWN: Final = 500


class Rules(msgspec.Struct, frozen=True):
    """Where callbacks may go, and whether the task is of a workflow, which signals can go to."""

    allow: Allow
    in_workflow: bool


def check(o: Options | OptionsPatch, at: str, rules: Rules, faults: list[Fault], check_task: CheckTask) -> None:
    """Adds what is wrong with the options for a task's end; `check_task` looks at a task that is to follow. UNSET
    stands for what is not said, or is wrong already."""
    if isinstance(o.callback_url, str):
        path = f"{at}options.callback_url"
        if o.callback_url.startswith(_PATHS):
            _check_signal(o.callback_url, path, rules, faults)
        elif (wrong := addresses.fault(o.callback_url, rules.allow)) is not None:
            faults.append(Fault(path, wrong))
    path = f"{at}options.on_completion"
    said = o.on_completion
    if isinstance(said, list):
        for n, action in enumerate(said):
            _check_action(action, f"{path}[{n}]", rules, faults, check_task)
            if action == "none" and len(said) > 1:
                faults.append(Fault(f"{path}[{n}]", "does not go together with others"))
    elif isinstance(said, str | ActionIn):
        _check_action(said, path, rules, faults, check_task)


def _check_action(
    action: str | ActionIn, path: str, rules: Rules, faults: list[Fault], check_task: CheckTask
) -> None:  # fmt: skip
    if isinstance(action, ActionIn):
        if (action.signal is None) == (action.submit is None):
            faults.append(Fault(path, "give one of signal and submit"))
        elif isinstance(action.signal, str):
            _check_signal(action.signal, path, rules, faults)
        elif isinstance(action.submit, TaskIn):  # else wrong already
            check_task(action.submit, faults, f"{path}.submit.")
    elif not isinstance(action, str) or action in _WORDS:  # wrong already, or right
        return
    elif "://" in action:
        wrong = addresses.fault(action, rules.allow)
        if wrong is not None:
            faults.append(Fault(path, wrong))
    elif action.startswith(_PATHS) or re.fullmatch(patterns.NAME, action):
        _check_signal(action, path, rules, faults)
    else:
        faults.append(Fault(path, f"expected {', '.join(_WORDS)}, a URL, the name of a signal, or an object"))


def _check_signal(said: str, path: str, rules: Rules, faults: list[Fault]) -> None:
    name = signal_of(said)
    if not re.fullmatch(patterns.NAME, name):
        faults.append(Fault(path, f"{name!r} is no name of a signal"))
    elif not rules.in_workflow:
        faults.append(Fault(path, f"{_NO_WORKFLOW}{did_you_mean(said, _WORDS)}", "unprocessable"))


def signal_of(said: str) -> str:
    """The name in `/internal/NAME`, `/webhook/NAME` or NAME."""
    for path in _PATHS:
        said = said.removeprefix(path)
    return said


def is_signal(callback_url: str) -> bool:
    """Whether a callback is no request but a signal to the task's workflow."""
    return callback_url.startswith(_PATHS)


def check_together(o: Options | Spec, faults: list[Fault], at: str = "") -> None:
    """Adds what needs a callback_url that is not there."""
    if o.callback_url is None:
        said = o.on_completion if isinstance(o.on_completion, list) else [o.on_completion]
        if "callback_url" in said:
            faults.append(Fault(f"{at}options.on_completion", "callback_url is not given"))
        if o.on_failure == "callback":
            faults.append(Fault(f"{at}options.on_failure", "callback_url is not given"))


def check_templates(task: TaskIn, faults: list[Fault], at: str) -> set[str]:
    """Adds what is wrong with the templates of a task that is to follow; answers where they stand: what is said of
    these values before is said too early."""
    from orchestr8d.core import template  # late: only who has such tasks needs it, and importing takes time

    texts = {name: text for name in _TEMPLATES if (text := getattr(task, name)) is not UNSET}  # wrong already
    faults += [Fault(at + fault.path, fault.message, fault.kind) for fault in template.check(texts, ("task",))]
    return {at + place for place in template.places(texts)}


def stored(said: OnCompletion | None, *, is_agent: bool) -> Stored:
    """As it is kept: a signal as `{"signal": NAME}`, however it was written. Where nothing is said, an agent's task
    notifies, a command does not."""
    if said is None:
        return ["notification"] if is_agent else []
    actions = said if isinstance(said, list) else [said]
    kept: Stored = []
    for action in actions:
        one = msgspec.to_builtins(action)
        if isinstance(one, str) and one not in _WORDS and "://" not in one:
            one = {"signal": signal_of(one)}
        if one != "none" and one not in kept:
            kept.append(one)
    return kept


def shown(actions: Stored) -> Stored:
    """The same without the environment and stdin of tasks that follow: secrets may be in them."""
    return [
        {"submit": without_secrets(action["submit"])} if isinstance(action, dict) and "submit" in action else action
        for action in actions
    ]


def without_secrets(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task as it was written, without its environment and stdin."""
    kept = {name: value for name, value in task.items() if name not in ("env", "stdin")}
    options = kept.get("options")
    if isinstance(options, dict) and "on_completion" in options:
        said = options["on_completion"]
        actions = [
            {"submit": without_secrets(one["submit"])} if isinstance(one, dict) and one.get("submit") else one
            for one in (said if isinstance(said, list) else [said])
        ]
        kept["options"] = options | {"on_completion": actions if isinstance(said, list) else actions[0]}
    return kept


def follow_ups(spec: Spec) -> list[dict[str, Any]]:
    """The tasks that are to follow, as they were written."""
    return [action["submit"] for action in spec.on_completion if isinstance(action, dict) and "submit" in action]


def signals(spec: Spec, status: TaskStatus) -> list[str]:
    """Names of the signals that its workflow gets when the task has come to this final state."""
    found = [signal_of(spec.callback_url)] if spec.callback_url is not None and is_signal(spec.callback_url) else []
    if status == "completed":
        found += [one["signal"] for one in spec.on_completion if isinstance(one, dict) and "signal" in one]
    return list(dict.fromkeys(found))


def all_follow_ups(on_completion: Any) -> list[dict[str, Any]]:
    """The tasks that follow from these actions, as they were written, and those that follow from them."""
    found = []
    todo = [on_completion]
    while todo:
        said = todo.pop()
        for action in said if isinstance(said, list) else [said]:
            if isinstance(action, dict) and action.get("submit"):
                found.append(action["submit"])
                todo.append((action["submit"].get("options") or {}).get("on_completion"))
    return found


def seen(result: Result) -> dict[str, Any]:
    """The finished task as templates see it. `result` is text, without its last newline; `output` the JSON value, of
    what is one."""
    task = result.task
    text, value = None, None
    if result.body is not None:
        text = result.body[:_MOST_TEXT].decode(errors="replace").removesuffix("\n")
        if task.result_type == "json":
            value = msgspec.json.decode(result.body)
    error = task.read_error()
    return {
        "task_id": task.id, "status": task.status, "result": text, "output": value,
        "error": None if error is None else msgspec.to_builtins(error),
    }  # fmt: skip


def rendered(asked: dict[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """The task that follows, with what its templates give. Raises TemplateError."""
    from orchestr8d.core import template

    limits = template.Limits(size=2 * _MOST_TEXT)
    texts = template.render(_templates(asked), {"task": task}, limits)
    return asked | {
        name: template.as_text(value) if isinstance(asked[name], str) else template.texts(value)
        for name, value in texts.items()
    }


def _templates(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asked[name] for name in _TEMPLATES if asked.get(name) is not None}


def notice(task: Task, spec: Spec) -> NewNotice:
    """What a person is told of a task's end. It leaves the machine: a command line's secrets stay behind."""
    what = spec.title or task.agent or (" ".join(spec.command) if spec.command else task.kind)
    what = redact.text(what)
    what = what if len(what) <= _SHOWN else f"{what[:_SHOWN]}…"
    error = task.read_error()
    is_done = task.status == "completed"
    title = f"{what} is completed" if is_done else f"{what} failed"
    return NewNotice(
        user_id=task.user_id, type="task_complete" if is_done else "task_failure", title=title,
        message=title if error is None else f"{title}: {error.message or error.kind}",
        workflow_id=task.workflow_id, task_id=task.id,
    )  # fmt: skip


def is_cut_off(task: Task) -> bool:
    """Whether it failed for what others of its workflow did: of that workflow's end is told."""
    error = task.read_error()
    return task.workflow_id is not None and error is not None and error.kind == "dependency_failed"


def not_followed(task_id: str, user_id: str, reason: str) -> NewNotice:
    """What a person is told when a task that was to follow is not made."""
    return NewNotice(
        user_id=user_id, type="alert", message=f"the task that should follow task {task_id} was not made: {reason}",
        title="A follow-up was not made", task_id=task_id,
    )  # fmt: skip
