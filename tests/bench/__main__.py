"""`python -m tests.bench [NAME…]`: measures, prints a line for each figure, and exits 1 when a bar is missed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import msgspec

from tests.bench import growth, hooks, idle, latency, runs, schedules, starts, submits, webhooks, workflows
from tests.bench.lines import HEADING, Line
from tests.bench.setting import FULL, QUICK, Setting, setting

BENCHES: dict[str, Callable[[Setting], list[Line]]] = {
    "submit": submits.submit,
    "batch": submits.batch,
    "run": runs.run,
    "spooler": runs.spooler,
    "latency": latency.latency,
    "hooks": hooks.hooks,
    "webhooks": webhooks.webhooks,
    "workflows": workflows.workflows,
    "schedules": schedules.schedules,
    "growth": growth.growth,
    "restart": starts.restart,
    "idle": idle.idle,
    "cli": starts.cli,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(BENCHES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small and rough, for work on the benchmarks themselves")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    if unknown := set(args.names) - set(BENCHES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if not args.json:
        print(HEADING)
    missed = False
    with setting(QUICK if args.quick else FULL) as where:
        for name in args.names or BENCHES:
            for line in BENCHES[name](where):
                missed = missed or line.ok is False
                print(msgspec.json.encode(line.as_json()).decode() if args.json else line.as_text(), flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
