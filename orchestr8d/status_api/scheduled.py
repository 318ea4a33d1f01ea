"""What a schedule starts: its body, made into a task or workflow at each firing as if somebody sent it then."""

from __future__ import annotations

from orchestr8d.core.decode import convert
from orchestr8d.core.errors import Problem, refuse
from orchestr8d.core.notices import DEFAULT_USER
from orchestr8d.core.schedule_input import ScheduleIn
from orchestr8d.core.schedules import Made, Schedule
from orchestr8d.core.task_input import TaskIn
from orchestr8d.core.workflow_input import WorkflowIn
from orchestr8d.status_api import schedules, submit, workflow_start
from orchestr8d.status_api.services import Services
from orchestr8d.tokens import Caller


async def made(services: Services, schedule: Schedule) -> Made:
    """Raises Problem, for example when an agent is gone."""
    user_id = None if schedule.user_id == DEFAULT_USER else schedule.user_id
    caller = Caller(token_id="", name="schedule", scope="submit", user_id=user_id)
    if schedule.task is not None:
        task, faults = convert(schedule.body(), TaskIn)
        refuse(faults)
        assert task is not None
        (new,) = await submit.made(services, caller, task)
        return new
    asked, faults = convert(schedule.body(), WorkflowIn)
    refuse(faults)
    assert asked is not None
    return await workflow_start.resolved(services, caller, asked)


async def doubts(services: Services, said: ScheduleIn) -> list[str]:
    """Why one of the configuration would start nothing if it were due now."""
    caller = Caller(token_id="", name="configuration", scope="submit")
    try:
        await schedules.checked(services, caller, [("", said)])
    except Problem as problem:
        # That a single time has passed is nothing new.
        of_body = [fault for fault in problem.faults if not fault.path.startswith("schedule")]
        return [f"{fault.path}: {fault.message}" for fault in of_body]
    return []
