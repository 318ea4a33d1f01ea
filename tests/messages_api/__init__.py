"""A local Anthropic Messages API that answers as the prompt says, so that tests can run the real Claude CLI offline.

The script of a conversation travels in its prompt: one step for each answer of the model. Nothing is kept between
requests but counts, so any number of sessions run at once, and a session that is resumed goes on where it was.

    prompt = script(use("Bash", command="make"), say("built", usage={"output_tokens": 9}))
    # -> '@@steps [{"tools":[{"name":"Bash","input":{"command":"make"}}]},{"text":"built","usage":{"output_tokens":9}}]'

- Which step: the newest message of the user that holds a script decides; its step is the number of answers since. Past
  the last step the answer is the text "ok". Without a script `api.otherwise(BODY)` gives the step: "ok", or the least
  that fits the schema where one is asked for (`ok`), unless a test puts something else there. Words around the script
  do no harm. A subagent is scripted by the prompt in its tool's input. A script that cannot be read is an error 400
  that says why.
- `say(TEXT)` ends the turn; `use(TOOL, **INPUT)` calls a tool; `answer(TEXT, call(..), call(..))` does several at once.
  Structured output is `use("StructuredOutput", **OBJECT)`, a todo list `use("TodoWrite", todos=[..])` or
  `use("TaskCreate", ..)`: all of it is just tools.
- `fail(STATUS)` fails each attempt at its step: the CLI's own retries, and those of a resumed session. `LOW_CREDIT`
  and `limit_reached(RESETS_AT)` are the errors that accounts meet; `fail(200, "overloaded_error")` comes after the
  first words of an answer.
- Every step but `use` takes, besides `usage` (what differs from USAGE) and `stop_reason`:
  - `gate="NAME"`: nothing is sent until the test calls `api.open("NAME")`. A gate that nobody opens is a hang.
  - `gate_mid="NAME"`: the same, after the first words were sent.
  - `drop="start"` or `"middle"`: the connection is cut before the headers, or after the first words.
  - `pause=SECONDS`: between the words of the text.
  - `first=[STEP, ..]`: what the first attempts at this step get instead; `say("ok", first=[fail(529)] * 2)` is flaky.
  - `headers={..}` of the answer.
- `script(..., name="NAME")` tells conversations apart: in `api.requests`, in `api.wait(n, "NAME")`, and where attempts
  are counted (conversations with the same name and steps share their counts).

The fixtures are `messages_api`, `claude_env` and `claude` (fixtures.py); `tests/claude_cli.py` has what they give.
"""

from tests.messages_api.server import MessagesApi, Request
from tests.messages_api.steps import LOW_CREDIT, USAGE, answer, call, fail, limit_reached, ok, say, script, use

__all__ = [
    "LOW_CREDIT",
    "USAGE",
    "MessagesApi",
    "Request",
    "answer",
    "call",
    "fail",
    "limit_reached",
    "ok",
    "say",
    "script",
    "use",
]
