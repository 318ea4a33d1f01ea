"""`orchestr8d completion`: the shell's tab completion."""

from __future__ import annotations

import click

from orchestr8d.cli import exits

INSTALL = {
    "bash": 'add to ~/.bashrc:  eval "$(orchestr8d completion bash)"',
    "zsh": 'add to ~/.zshrc:  eval "$(orchestr8d completion zsh)"',
    "fish": "run once:  orchestr8d completion fish > ~/.config/fish/completions/orchestr8d.fish",
}


@click.command(epilog='Example: eval "$(orchestr8d completion bash)"')
@click.argument("shell", type=click.Choice(list(INSTALL)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    Its first line says how to install it.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "orchestr8d", exits.COMPLETE)
    click.echo(f"# To install, {INSTALL[shell]}")
    # bash's class asks bash for its version in `source`; the script itself needs no bash here.
    click.echo(script.source_template % script.source_vars())
