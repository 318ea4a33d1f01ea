"""Stands for the Claude CLI where it does not matter what a model says: runs its prompt in a shell, and speaks of it in
the CLI's records. Called without -p it shows how it was called."""

import json
import os
import subprocess
import sys
from pathlib import Path

ARGS = sys.argv[1:]


def after(flag: str) -> str | None:
    return ARGS[ARGS.index(flag) + 1] if flag in ARGS else None


def say(**record: object) -> None:
    print(json.dumps(record), flush=True)


if "-p" not in ARGS:
    print(json.dumps({"args": ARGS, "cwd": str(Path.cwd()), "given": os.environ.get("GIVEN")}))
    sys.exit(7)

prompt = sys.stdin.read()
session = after("--session-id") or after("--resume")
say(type="system", subtype="init", cwd=str(Path.cwd()), model="talker-1", session_id=session)
say(type="assistant", message={"content": [{"type": "tool_use", "name": "Bash", "input": {"command": prompt}}]})
home = Path(os.environ.get("CLAUDE_CONFIG_DIR") or Path(os.environ["HOME"], ".claude"), "projects/here")
home.mkdir(parents=True, exist_ok=True)
begun = home / f"{after('--resume')}.jsonl"
said = begun.read_text() if begun.exists() else ""
(home / f"{session}.jsonl").write_text(said + '{"type":"user"}\n')
done = subprocess.run(["sh", "-c", prompt], capture_output=True, text=True, check=False)
turns = (said + ".").count("\n") + 1
record: dict[str, object] = {
    "result": done.stdout or "nothing", "num_turns": turns, "total_cost_usd": 0.25 * turns, "duration_ms": 1200,
    "usage": {"input_tokens": 1000, "output_tokens": 50, "cache_read_input_tokens": 200},
}  # fmt: skip
if after("--json-schema") or any(arg.startswith("--json-schema=") for arg in ARGS):
    record["structured_output"] = json.loads(done.stdout)
say(type="assistant", message={"content": [{"type": "text", "text": done.stdout or "nothing"}]})
record |= {"session_id": session, "permission_denials": [], "modelUsage": {}}
say(type="result", subtype="success", is_error=False, **record)
