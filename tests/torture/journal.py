"""What tasks write down themselves when they run, so that what really ran can be held against what was recorded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

# journal.sh JOURNAL [KEY] -- WHAT [ARG]: a line when it starts, one when it ends (SIGTERM too), each a single write in
# append mode. Tasks that share a concurrency key write to the key's file as well: in what order is then beyond doubt.
SCRIPT = """\
journal=$1 key=$2; shift 2; [ "$1" = -- ] && shift
say() {
  [ -z "$key" ] || [ "$1" = E ] || echo "$1 $ORCHESTR8_ATTEMPT_ID" >>"$key"
  echo "$1 $ORCHESTR8_ATTEMPT_ID" >>"$journal"
  [ -z "$key" ] || [ "$1" = S ] || echo "$1 $ORCHESTR8_ATTEMPT_ID" >>"$key"
}
finish() { say E; exit "$1"; }
say S
trap 'finish 143' TERM
case $1 in
  true) finish 0 ;;
  false) finish 1 ;;
  sleep) sleep "$2" ;;
  spawn) sleep 300 & setsid sleep 300 & (setsid sleep 300 &) ;;
  print) seq "$2" ;;
  until) while ! [ -e "$2" ]; do sleep 0.02; done ;;
esac
finish 0
"""


class Journal:
    """A directory with one file for each submitted task, one for each key, and the script that writes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.script = directory / "journal.sh"
        self.script.write_text(SCRIPT)

    def command(self, label: str, *what: str, key: str | None = None) -> list[str]:
        """A command that does `what` (see SCRIPT) and journals it under the label."""
        key_file = "" if key is None else str(self.directory / f"{key}.key")
        return ["sh", str(self.script), str(self.directory / f"{label}.task"), key_file, "--", *what]

    def starts(self, label: str) -> list[str]:
        """Attempt ids, one for each time that the task's command was started."""
        return [attempt for what, attempt in _lines(self.directory / f"{label}.task") if what == "S"]

    def ends(self, label: str) -> list[str]:
        return [attempt for what, attempt in _lines(self.directory / f"{label}.task") if what == "E"]

    def labels(self) -> list[str]:
        return [path.stem for path in self.directory.glob("*.task")]

    def overlaps(self) -> list[str]:
        """Runs under one key of which one ended after the next had started."""
        found = []
        for path in self.directory.glob("*.key"):
            latest = ""
            for what, attempt in _lines(path):
                if what == "S":
                    latest = attempt
                elif attempt != latest:
                    found.append(f"{path.stem}: {attempt} ended while {latest} ran")
        return found


def _lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def doubled(items: Iterable[str]) -> list[str]:
    return [item for item, times in Counter(items).items() if times > 1]


def left_alive(attempt_ids: Iterable[str]) -> dict[int, str]:
    """Processes that bear the marker of one of these attempts, with their command."""
    markers = {f"ORCHESTR8_ATTEMPT_ID={a}".encode() for a in attempt_ids}
    found = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            environ = Path(entry.path, "environ").read_bytes().split(b"\0")
            command = Path(entry.path, "cmdline").read_bytes()
        except OSError:
            continue
        if command and markers.intersection(environ):
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found
