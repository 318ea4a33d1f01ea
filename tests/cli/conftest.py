"""The real command line, as a user's shell would start it, to drive a real daemon."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestr8d.cli import exits, root
from orchestr8d.client import Client, Endpoint
from tests.daemon import Daemon

ROOT = Path(__file__).parent.parent.parent


class Box(Daemon):
    """A daemon, and `orchestr8d` for its user. Nothing of the account that runs the tests is seen or touched."""

    def __init__(self, state: Path, env: Mapping[str, str] | None = None) -> None:
        super().__init__(state, env={"HOME": str(state.parent), "PYTHONPATH": str(ROOT), **(env or {})})

    def popen(self, *args: str) -> subprocess.Popen[str]:
        """A run that goes on."""
        return subprocess.Popen(
            [sys.executable, "-m", "orchestr8d", *args],
            env=self.env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(
        self, *args: str, code: int = 0, stdin: str | bytes = b"", env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """One run of the command line, which must end with `code` and never with a traceback."""
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        done = subprocess.run(
            [sys.executable, "-m", "orchestr8d", *args],
            env=self.env | dict(env or {}), cwd=cwd, input=data, capture_output=True, timeout=60,
        )  # fmt: skip
        shown = subprocess.CompletedProcess(args, done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in shown.stderr, shown.stderr
        assert done.returncode == code, (args, shown.stdout, shown.stderr)
        return shown

    def out(
        self, *args: str, stdin: str | bytes = b"", env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> str:
        """The stdout of a run that succeeds, without its last line's end."""
        return self.run(*args, stdin=stdin, env=env, cwd=cwd).stdout.strip()

    def client(self) -> Client:
        return Client(self.endpoint)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(host="127.0.0.1", port=self.port, token=self.token)


def until_it_waits(process: subprocess.Popen[str]) -> None:
    """Until the process sits in a request: it has a connection, and sleeps."""
    proc = Path(f"/proc/{process.pid}")
    seen, end = 0, time.monotonic() + 20
    while seen < 5:
        assert process.poll() is None and time.monotonic() < end
        try:
            connected = any("socket:" in fd.readlink().name for fd in (proc / "fd").iterdir())
            sleeps = (proc / "stat").read_text().rpartition(")")[2].split()[0] == "S"
        except OSError:  # a descriptor that was closed meanwhile
            connected = sleeps = False
        seen = seen + 1 if connected and sleeps else 0
        time.sleep(0.03)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Box]:
    """A box whose daemon was not started."""
    box = Box(tmp_path / "state")
    yield box
    if box.process is not None:
        box.stop()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box with a running daemon, shared by the tests of a module."""
    env = {"ORCHESTR8D_EXECUTOR__CHILDREN": "stop", "ORCHESTR8D_EXECUTOR__GRACE": "1"}
    box = Box(tmp_path_factory.mktemp("box") / "state", env)
    box.start()
    yield box
    box.stop()


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Cli = Callable[..., Said]


@pytest.fixture
def cli(box: Box, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """The command line in this process: to start one for each word would take longer than all else here."""
    monkeypatch.setenv("ORCHESTR8_URL", f"http://127.0.0.1:{box.port}")
    monkeypatch.setenv("ORCHESTR8_TOKEN", box.token)
    monkeypatch.chdir(tmp_path)

    def run(*args: str, code: int = 0, stdin: str = "") -> Said:
        (tmp_path / "stdin").write_text(stdin)
        capfdbinary.readouterr()
        with (tmp_path / "stdin").open() as given, monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["orchestr8d", *args])
            patch.setattr(sys, "stdin", given)
            ended = exits.run(root)
        sys.stderr.flush()
        out, err = (stream.decode() for stream in capfdbinary.readouterr())
        assert ended == code, (args, out, err)
        return Said(ended, out, err)

    return run
