"""What of the daemon's own environment reaches a child: a list of what may, and one of what never does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

# A bundler's traces, the service manager's channels, the daemon's own settings: whatever is allowed.
ENV_NEVER = (
    "LD_LIBRARY_PATH", "LD_LIBRARY_PATH_ORIG", "_PYI_*", "_MEIPASS*",
    "NOTIFY_SOCKET", "WATCHDOG_*", "LISTEN_*", "ORCHESTR8*",
)  # fmt: skip


def allowed(environ: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """What of an environment matches one of the patterns and none of ENV_NEVER."""
    return {
        name: value
        for name, value in environ.items()
        if any(fnmatchcase(name, p) for p in patterns) and not any(fnmatchcase(name, p) for p in ENV_NEVER)
    }


class Inherited:
    """What children get of `environ` by patterns; found anew only when the patterns have changed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._patterns: Sequence[str] = ()
        self._found: Mapping[str, str] = {}

    def by(self, patterns: Sequence[str]) -> Mapping[str, str]:
        if patterns != self._patterns:
            self._patterns, self._found = patterns, allowed(self._environ, patterns)
        return self._found
