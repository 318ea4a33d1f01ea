"""The keeper's two loops: threads that start commands as they are told, and one that waits for them to end.

Standard input is a stream socket to the daemon. It brings a JSON object a line for each command, and takes one for
each that was started or could not be, and one for each that ended (processes/link.py has them).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from orchestr8d.keeper import RLIMIT_LOCKS, record
from orchestr8d.keeper.program import NotFound, check_directory, resolve
from orchestr8d.keeper.spawn import Open, spawn

_DAEMON = 0
_PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 15, 36
_WNOTHREAD = 0x20000000
_CLD_EXITED = 1
# One that hangs on a dead network disk does not keep the others from starting.
_THREADS = 4
# They are sent to groups and by mistake; what ends the keeper is the end of its work.
_IGNORED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM")
# A daemon started by nohup or from Python ignores some signals, and children inherit that.
_DEFAULTS = frozenset(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
# Made here and by nobody else: what is in their place is neither waited for nor written to.
_OUT = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
# What is wrong with a command that was found, by what posix_spawn says of it.
_FAULTS = {
    errno.E2BIG: "its arguments and environment are longer than the system takes",
    errno.ENOENT: "what runs it (its interpreter) or its directory does not exist",
    errno.ENOTDIR: "what runs it (its interpreter) or its directory does not exist",
    errno.EACCES: "it, what runs it (its interpreter) or its directory may not be used",
    errno.EPERM: "it may not be run",
    errno.ELOOP: "its interpreters run each other",
    errno.ETXTBSY: "it is being written to",
    errno.EINVAL: "is not a program of this system",
    errno.ELIBBAD: "is not a program of this system",
}


class Keeper:
    """`boot` names the machine's present one, for the records.

    Commands are children of the starting threads, so the main thread's children are orphans of attempts and nothing
    else, as the keeper is their reaper: one system call tells that a command left nothing behind.
    """

    def __init__(self, boot: str) -> None:
        self._boot = boot
        self._limits = resource.getrlimit(RLIMIT_LOCKS)
        # Requests and exit files of what runs, by pid.
        self._running: dict[int, tuple[int, str]] = {}
        self._requests = open(_DAEMON, "rb", closefd=False)  # noqa: SIM115  # for as long as we live
        self._reading, self._spawning, self._telling = threading.Lock(), threading.Lock(), threading.Lock()
        self._more = threading.Event()
        self._deserted = False
        self._daemon = select.poll()
        self._daemon.register(_DAEMON, 0)

    def run(self) -> None:
        """Returns when the daemon is gone and nothing runs any more."""
        for _ in range(_THREADS):
            threading.Thread(target=self._guarded, args=(self._start_all,), daemon=True).start()
        self._guarded(self._await_all)

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException:
            import traceback

            self._tell({"is": "defect", "text": traceback.format_exc()})
            os._exit(1)

    # -- starting

    def _start_all(self) -> None:
        while True:
            try:
                with self._reading:
                    line = self._requests.readline()
            except OSError:
                break  # it died before it had read all that we told it
            if not line.endswith(b"\n"):
                break
            request = json.loads(line)
            try:
                self.start(**request)
            except (NotFound, ValueError) as e:
                self._tell({"is": "refused", "request": request["request"], "text": str(e)})
            except OSError as e:
                self._tell(
                    {"is": "failed", "request": request["request"], "errno": e.errno or 0, "path": e.filename or ""}
                )
        self._deserted = True
        self._more.set()

    def start(
        self, *, request: int, argv: Sequence[str], env: Mapping[str, str], cwd: str, exit_file: str, stdin: str,
        stdout: str, stderr: str, anew: bool, tag: int,
    ) -> None:  # fmt: skip
        """Start `argv` in `cwd`, with paths for its exit file and its streams; `anew`: what lies there is removed.

        Raises NotFound for what is wrong with the command, OSError when a file or the process could not be made.
        """
        check_directory(cwd)
        # No PATH at all: where a shell would look then.
        program = resolve(argv[0], env.get("PATH", os.defpath), cwd)
        if anew:
            # The attempt could write here, and the step may have been begun before.
            for path in (exit_file, stdout, stderr):
                _remove(path)
        try:
            record.fill(exit_file, self._boot)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(exit_file), 0o700, exist_ok=True)
            record.fill(exit_file, self._boot)
        opens = [(0, stdin, os.O_RDONLY, 0), (1, stdout, _OUT, 0o600), (2, stderr, _OUT, 0o600)]
        with self._spawning:
            if self._daemon.poll(0):
                return  # it is dead, and the next one counts on what it finds
            pid = self._spawn_tagged(tag, program, [program, *argv[1:]], env, cwd, opens)
            with contextlib.suppress(OSError):
                record.begun(exit_file, pid)
            self._tell({"is": "started", "request": request, "pid": pid})
            # From here on its end may be told.
            self._running[pid] = request, exit_file
        self._more.set()

    def _spawn_tagged(
        self, tag: int, program: str, argv: list[str], env: Mapping[str, str], cwd: str, opens: Sequence[Open]
    ) -> int:
        # The soft limit is inherited: the command bears it from its first moment, and so does all it starts.
        resource.setrlimit(RLIMIT_LOCKS, (tag, self._limits[1]))
        try:
            pid = self._spawn(program, argv, env, cwd, opens)
            # Only root can raise it again now. A program that became somebody else (sudo) is beyond us.
            with contextlib.suppress(OSError):
                resource.prlimit(pid, RLIMIT_LOCKS, (tag, tag))
        finally:
            resource.setrlimit(RLIMIT_LOCKS, self._limits)
        return pid

    @staticmethod
    def _spawn(
        program: str, argv: list[str], env: Mapping[str, str], cwd: str, opens: Sequence[Open]
    ) -> int:
        try:
            return spawn(program, argv, env, cwd, opens, _DEFAULTS)
        except OSError as e:
            if (fault := _FAULTS.get(e.errno or 0)) is not None:
                raise NotFound(f"{program}: {fault}") from e
            if e.errno != errno.ENOEXEC:
                raise
        # A script whose first line does not say what runs it: the shell, as everywhere.
        for _, path, flags, _ in opens:
            if flags & os.O_CREAT:
                _remove(path)
        return spawn("/bin/sh", ["sh", *argv], env, cwd, opens, _DEFAULTS)

    # -- ending

    def _await_all(self) -> None:
        while True:
            self._more.clear()
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                if self._deserted:
                    with self._spawning:  # one may have been on its way when the daemon died
                        if not self._running:
                            return
                else:
                    self._more.wait()
                continue
            if dead is not None:
                self._take(dead)

    def _take(self, dead: os.waitid_result) -> None:
        pid = dead.si_pid
        command = self._running.pop(pid, None)
        if command is None:
            with self._spawning:  # it may have ended before it was noted
                command = self._running.pop(pid, None)
        if command is None:
            # What could not become the program is taken in by posix_spawn itself.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            return
        request, exit_file = command
        status = dead.si_status if dead.si_code == _CLD_EXITED else 128 + dead.si_status
        # The command may have removed its record: the daemon is told in any case.
        with contextlib.suppress(OSError):
            # Before it is taken in: whoever finds it gone finds its status.
            record.ended(exit_file, status)
        usage = os.wait4(pid, 0)[2]
        cpu, rss = round(usage.ru_utime + usage.ru_stime, 6), usage.ru_maxrss * 1024
        with contextlib.suppress(OSError):
            record.used(exit_file, cpu, rss)
        left = self._orphans()
        self._tell({"is": "ended", "request": request, "status": status, "cpu": cpu, "rss": rss, "left": left})

    def _orphans(self) -> bool:
        """Whether some attempt's orphan may be alive: False is certain. Dead ones are taken in on the way."""
        for _ in range(1000):
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WNOTHREAD)
            except ChildProcessError:
                return False
            if dead is None or dead.si_pid in self._running:
                return True
            os.waitpid(dead.si_pid, 0)
        return True

    def _tell(self, message: Mapping[str, object]) -> None:
        data = json.dumps(message).encode() + b"\n"
        # When it is gone, the records are there for the next one.
        with self._telling, contextlib.suppress(OSError):
            while data:
                data = data[os.write(_DAEMON, data) :]


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def main() -> None:
    """Arguments: the soft limit of descriptors that commands get, and the boot."""
    descriptors, boot = int(sys.argv[1]), sys.argv[2]
    for name in _IGNORED:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    # Inherited as ignored from who started the daemon, it would keep us from learning how commands end.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_NAME, b"orchestr8-keep", 0, 0, 0)
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    Keeper(boot).run()
