"""The `claude` runner: agents of the Claude Code CLI."""

from orchestr8d.task_runners.claude.runner import ClaudeRunner, no_bypass_reason, off_reason

__all__ = ["ClaudeRunner", "no_bypass_reason", "off_reason"]
