"""What the tests of the loops share: a runner that does as it is told."""

from __future__ import annotations

import asyncio

from orchestr8d.core.outcome import Outcome
from orchestr8d.task_runners import Run


class ToldRunner:
    """A runner whose runs end when the test says how; a stop ends them too."""

    kind = "command"

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self._outcomes: dict[str, asyncio.Future[Outcome]] = {}

    async def run(self, run: Run) -> Outcome:
        future = self._outcomes[run.task_id] = asyncio.get_running_loop().create_future()
        self.runs[run.task_id] = run
        try:
            await asyncio.wait([future, run.stop.asked], return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
            assert run.stop.why is not None
            return Outcome(status=run.stop.why)
        finally:
            del self.runs[run.task_id]

    def end(self, task_id: str, outcome: Outcome) -> None:
        self._outcomes[task_id].set_result(outcome)
