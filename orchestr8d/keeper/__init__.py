"""The keeper: a small process that starts the commands of attempts, outlives the daemon, and records how they ended.

A daemon starts one, and its death is the end of the keeper's input: it waits for what still runs then, and ends. It
stands on the standard library alone and loads as little of that as it can, as each daemon has one beside it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# Means nothing to Linux since 2.4.25, is inherited and survives `env -i`: it tags all processes of an attempt.
RLIMIT_LOCKS = 10
# It is found beside us, whatever the environment says, and needs nothing that `site` would load.
_CODE = "import sys; sys.path.append(sys.argv.pop(1)); from orchestr8d.keeper.main import main; main()"
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def command(descriptors: int, boot: str) -> list[str]:
    """What starts one. `descriptors` is the soft limit of them that commands get, `boot` names the present boot."""
    return [sys.executable, "-I", "-S", "-c", _CODE, _ROOT, str(descriptors), boot]


def is_keeper(command_line: Sequence[str]) -> bool:
    return _CODE in command_line
