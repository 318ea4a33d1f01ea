"""Schedules over HTTP: made, read, changed, held, fired by hand; and when a rule would be due."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from orchestr8d.core import cron, cron_words, durations, schedule_input, schedules
from orchestr8d.core.errors import Fault, Problem, enough, refuse
from orchestr8d.core.schedule_input import ScheduleIn, SchedulePatch, SchedulesIn
from orchestr8d.core.schedules import NewSchedule, Schedule, Written
from orchestr8d.core.task_input import TaskIn
from orchestr8d.core.workflow_input import WorkflowIn
from orchestr8d.status_api import cursors, respond, rights, submit, workflow_start
from orchestr8d.status_api import schedule_views as views
from orchestr8d.status_api.cursors import Page
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.tokens import Caller

T = TypeVar("T")
# Each with the beginning of its faults' paths.
Given = Sequence[tuple[str, ScheduleIn]]
# More runs than these are counted beside the loop.
_FEW: Final = 50
_LOCATION: Final = {"Location": "the schedule that was made"}


class Wanted(Page, frozen=True, forbid_unknown_fields=True):
    """Which schedules."""

    # A part of the name.
    q: str | None = None


class PreviewWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule (`{"at": TIME}` as JSON), and how many of its runs after when."""

    schedule: str | None = None
    timezone: str | None = None
    after: str | None = None
    count: Annotated[int, Meta(ge=1, le=10_000)] = 10


# -- made


async def checked(services: Services, caller: Caller, given: Given) -> list[NewSchedule]:
    """As the store takes them. Raises Problem with all faults."""
    faults: list[Fault] = []
    zone, now = services.config().cron.timezone, services.clock.now()
    for at, said in given:
        schedule_input.check(said, zone, faults, at, now)
    tasks = [(f"{at}task.", said.task) for at, said in given if said.task is not None]
    made, wrong = await _tried(submit.all_made(services, caller, tasks))
    faults += wrong
    users = {new.at: new.user_id for new in made or ()}
    for at, said in given:
        if said.workflow is not None and not enough(faults):
            new, wrong = await _tried(_workflow(services, caller, said.workflow), f"{at}workflow.")
            faults += wrong
            users[f"{at}workflow."] = "" if new is None else new.user_id
    refuse(faults)
    return [
        schedule_input.new_schedule(said, zone, users[f"{at}{'task' if said.task else 'workflow'}."], "api", at)
        for at, said in given
    ]


async def _workflow(services: Services, caller: Caller, asked: WorkflowIn) -> Any:
    new = await workflow_start.resolved(services, caller, asked)
    rights.check_definition(caller, new.definition)
    return new


async def _tried(work: Awaitable[T], at: str = "") -> tuple[T | None, list[Fault]]:
    """What came of it, or its faults, whose paths begin with `at`."""
    try:
        return await work, []
    except Problem as problem:
        if not problem.faults:
            raise
        return None, [Fault((at + f.path).rstrip("."), f.message, f.kind) for f in problem.faults]


async def _also(services: Services, call: Call) -> list[Fault]:
    """What else is wrong with schedules that are refused."""
    faults: list[Fault] = []
    given = _given(call.body)
    zone, now = services.config().cron.timezone, services.clock.now()
    for at, said in given:
        if not enough(faults):
            schedule_input.check(said, zone, faults, at, now)
    tasks = [(f"{at}task.", said.task) for at, said in given if isinstance(said.task, TaskIn)]
    faults += await submit.all_also(services, call.caller, tasks)
    for at, said in given:
        asked = said.workflow
        # Of one that is right in parts nothing more is told.
        if isinstance(asked, WorkflowIn) and UNSET not in msgspec.structs.astuple(asked) and not enough(faults):
            faults += (await _tried(_workflow(services, call.caller, asked), f"{at}workflow."))[1]
    return faults


def _given(body: ScheduleIn | SchedulesIn) -> Given:
    """The schedules of a body; without those of which nothing is right."""
    if isinstance(body, ScheduleIn):
        return [("", body)]
    return [(f"schedules[{n}].", said) for n, said in enumerate(body.schedules or ()) if said]


async def create(services: Services, call: Call) -> web.Response:
    new = await checked(services, call.caller, _given(call.body))
    body, replayed = await services.store.add_schedules(
        new, lambda made: respond.encode(views.one(made[0], made[0].created_at)), call.once
    )
    location = {"Location": views.url(msgspec.json.decode(body)["schedule_id"])}
    return respond.raw(body, 200 if replayed else 201, location)


async def create_many(services: Services, call: Call) -> web.Response:
    new = await checked(services, call.caller, _given(call.body))

    def answer(made: Sequence[Schedule]) -> bytes:
        return respond.encode(views.SchedulesMade([views.row(one, one.created_at) for one in made]))

    body, replayed = await services.store.add_schedules(new, answer, call.once)
    return respond.raw(body, 200 if replayed else 201)


# -- read


async def index(services: Services, call: Call) -> web.Response:
    wanted: Wanted = call.query
    before = cursors.read_int("schedules", wanted.cursor)
    found = await services.store.schedules(wanted.q, wanted.limit + 1, before)
    shown, now = found[: wanted.limit], services.clock.now()
    more = cursors.make("schedules", str(shown[-1].seq)) if len(found) > len(shown) else None
    return respond.json(views.Schedules([views.row(one, now) for one in shown], more))


async def show(services: Services, call: Call) -> web.Response:
    return _shown(services, await services.store.schedule(call.path("id")))


def _shown(services: Services, schedule: Schedule) -> web.Response:
    return respond.json(views.one(schedule, services.clock.now()))


async def history(services: Services, call: Call) -> web.Response:
    wanted: Page = call.query
    schedule = await services.store.schedule(call.path("id"))
    before = cursors.read_int("firings", wanted.cursor)
    found = await services.store.firings(schedule.id, wanted.limit + 1, before)
    shown = found[: wanted.limit]
    more = cursors.make("firings", str(shown[-1].firing.time)) if len(found) > len(shown) else None
    return respond.json(views.History([views.firing(view) for view in shown], more))


async def preview(services: Services, call: Call) -> web.Response:
    wanted: PreviewWanted = call.query
    after = services.clock.now()
    faults: list[Fault] = []
    if wanted.schedule is None:
        faults.append(Fault("schedule", "required, but missing"))
    if wanted.after is not None:
        try:
            after = durations.parse_time(wanted.after)
        except ValueError as error:
            faults.append(Fault("after", str(error)))
    zone = services.config().cron.timezone if wanted.timezone is None else wanted.timezone
    rule = None if wanted.schedule is None else _parsed(_written(wanted.schedule), zone, faults)
    refuse(faults)
    assert rule is not None
    if wanted.count > _FEW:
        runs = await asyncio.to_thread(rule.runs, after, wanted.count)
    else:
        runs = rule.runs(after, wanted.count)
    return respond.json(views.Preview([durations.iso(run) or "" for run in runs], cron_words.words(rule)))


def _written(text: str) -> Written:
    """A rule in a query: what is an object as JSON is one."""
    if text.lstrip().startswith("{"):
        try:
            found = msgspec.json.decode(text)
        except ValueError:
            return text
        if isinstance(found, dict):
            return found
    return text


def _parsed(written: Written, zone: str, faults: list[Fault], now: int | None = None) -> cron.Rule | None:
    try:
        return cron.parse(written, zone, now)
    except cron.BadRule as error:
        faults += error.faults
        return None


# -- changed


async def _steered(services: Services, call: Call) -> Schedule:
    """The schedule that the path names, for a caller who may change it."""
    schedule = await services.store.schedule(call.path("id"))
    await _check_rights(services, call.caller, schedule)
    return schedule


async def _check_rights(services: Services, caller: Caller, schedule: Schedule) -> None:
    """Raises Problem for a schedule that the caller's token must not write to."""
    rights.check_owner(caller, schedule.user_id, "schedules")
    if caller.runners is None and caller.agents is None:
        return
    if schedule.task is not None:
        rights.check_written(caller, schedule.body())
        return
    try:
        await _workflow(services, caller, msgspec.convert(schedule.body(), WorkflowIn))
    except Problem as problem:
        message = f"this token is for some tasks only, and this schedule's may be others: {problem.detail}"
        raise Problem("forbidden", message) from None


def _check_source(services: Services, schedule: Schedule) -> None:
    """Raises Problem for one that the configuration has."""
    if schedule.source == "config":
        file = services.config_file()
        where = "the configuration" if file is None else str(file)
        raise Problem("conflict", f"the schedule {schedule.name!r} is of the configuration: change it in {where}")


async def patch(services: Services, call: Call) -> web.Response:
    before = await _steered(services, call)
    _check_source(services, before)
    wanted: SchedulePatch = call.body
    changes = await _changes(services, call.caller, wanted, before)

    def decide(now: Schedule) -> Schedule:
        _check_source(services, now)
        return msgspec.structs.replace(now, **changes)

    return _shown(services, await services.ticker.change(before.id, decide))


async def _changes(services: Services, caller: Caller, wanted: SchedulePatch, before: Schedule) -> dict[str, Any]:
    """The columns that become others. Raises Problem with all faults."""
    faults: list[Fault] = []
    schedule_input.check_patch(wanted, faults)
    found: dict[str, Any] = {
        name: value
        for name in ("name", "timezone", "catch_up", "overlap", "active")
        if not isinstance(value := getattr(wanted, name), UnsetType)
    }
    _change_rule(services, wanted, before, found, faults)
    if wanted.catch_up_window is not UNSET:
        found["catch_up_window"] = schedule_input.seconds(wanted.catch_up_window)
    if wanted.jitter is not UNSET:
        found["jitter"] = durations.seconds(wanted.jitter)
    faults += await _wrong_bodies(services, caller, wanted)
    refuse(faults)
    if wanted.task is not UNSET or wanted.workflow is not UNSET:
        found["task"], found["workflow"] = _text(wanted.task), _text(wanted.workflow)
        found["user_id"] = schedule_input.user_of(wanted, before.user_id)
    return found


def _change_rule(
    services: Services, wanted: SchedulePatch, before: Schedule, found: dict[str, Any], faults: list[Fault]
) -> None:
    zone = before.timezone if wanted.timezone is UNSET else wanted.timezone
    if wanted.schedule is not UNSET:
        written = schedule_input.written(wanted.schedule)
        _parsed(written, zone, faults, services.clock.now())
        found["rule"] = respond.encode(written).decode()
    elif wanted.timezone is not UNSET:
        _parsed(before.written(), zone, faults)


async def _wrong_bodies(services: Services, caller: Caller, wanted: SchedulePatch) -> list[Fault]:
    faults: list[Fault] = []
    if wanted.task is not UNSET:
        faults += (await _tried(submit.all_made(services, caller, [("task.", wanted.task)])))[1]
    if wanted.workflow is not UNSET:
        faults += (await _tried(_workflow(services, caller, wanted.workflow), "workflow."))[1]
    return faults


def _text(body: TaskIn | WorkflowIn | UnsetType) -> str | None:
    return None if isinstance(body, UnsetType) else respond.encode(schedule_input.body(body)).decode()


async def remove(services: Services, call: Call) -> web.Response:
    schedule = await _steered(services, call)
    if any(said.name == schedule.name for said in services.config().schedules):
        # It would be there again after the next reload.
        _check_source(services, schedule)
    await services.store.remove_schedule(schedule.id)
    return web.Response(status=204, headers=respond.HEADERS)


async def pause(services: Services, call: Call) -> web.Response:
    return await _set_active(services, call, 0)


async def resume(services: Services, call: Call) -> web.Response:
    return await _set_active(services, call, 1)


async def _set_active(services: Services, call: Call, active: int) -> web.Response:
    before = await _steered(services, call)
    after = await services.ticker.change(before.id, lambda now: msgspec.structs.replace(now, active=active))
    return _shown(services, after)


async def trigger(services: Services, call: Call) -> web.Response:
    submit.accepting(services)
    schedule = await _steered(services, call)

    def answer(firing: schedules.Firing) -> bytes:
        return respond.encode(views.triggered(firing))

    body, replayed = await services.ticker.trigger(schedule.id, answer, call.once)
    there = replayed or msgspec.json.decode(body, type=views.Triggered).state != "fired"
    return respond.raw(body, 200 if there else 202)


_ALL: Final = "/api/v1/schedules"
_ONE: Final = f"{_ALL}/{{id}}"
ROUTES = (
    Route(
        "POST", _ALL, create, "Start a task or a workflow when a rule is due", "submit",
        {201: views.Schedule, 200: views.Schedule}, (409, 422), body=ScheduleIn, body_required=True, also=_also,
        once=True, response_headers={200: _LOCATION, 201: _LOCATION},
    ),
    Route(
        "POST", f"{_ALL}:batch", create_many, "Make up to 1,000 schedules, all or none", "submit",
        {201: views.SchedulesMade, 200: views.SchedulesMade}, (409, 422), body=SchedulesIn, body_required=True,
        also=_also, once=True,
    ),
    Route("GET", _ALL, index, "List schedules, newest first", "read", {200: views.Schedules}, query=Wanted),
    Route(
        "GET", f"{_ALL}:preview", preview, "When a rule would be due", "read", {200: views.Preview}, (422,),
        query=PreviewWanted,
    ),
    Route("GET", _ONE, show, "A schedule, by its id or name, with its next runs", "read", {200: views.Schedule}),
    Route(
        "PATCH", _ONE, patch, "Change a schedule; not one of the configuration", "submit", {200: views.Schedule},
        (409, 422), body=SchedulePatch,
    ),
    Route("DELETE", _ONE, remove, "Remove a schedule; what it has started goes on", "submit", {204: ()}, (409,)),
    Route("POST", f"{_ONE}/pause", pause, "Start nothing until it is resumed", "submit", {200: views.Schedule}),
    Route("POST", f"{_ONE}/resume", resume, "Go on, from now", "submit", {200: views.Schedule}, (422,)),
    Route(
        "POST", f"{_ONE}/trigger", trigger, "Start it now, also while it is paused", "submit",
        {202: views.Triggered, 200: views.Triggered}, (409, 422, 429), once=True,
    ),
    Route(
        "GET", f"{_ONE}/history", history, "What became of its due times, newest first", "read", {200: views.History},
        query=Page,
    ),
)  # fmt: skip
