"""``asced completion``: the script that makes a shell complete what is typed."""

from __future__ import annotations

import click

from asced_cli.command import as_json, asced_command, emit


@asced_command(
    ("For this shell only", 'eval "$(asced completion bash)"'),
    (
        "From now on, in bash",
        "asced completion bash > ~/.local/share/bash-completion/completions/asced",
    ),
    ("From now on, in fish", "asced completion fish > ~/.config/fish/completions/asced.fish"),
    remote=False,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a SHELL.

    Commands, options and their values complete: stores, pipelines, schedulers, variants. Bash needs
    version 4.4 or later; in zsh, put the file named _asced into a folder of $fpath.
    """
    from click.shell_completion import get_completion_class

    from asced_stores.errors import InputError

    kind = get_completion_class(shell)
    if kind is None:
        raise InputError(f"no completion for {shell}; there is one for bash, zsh and fish")
    asced = click.get_current_context().find_root().command
    script = kind(asced, {}, "asced", "_ASCED_COMPLETE")
    # Not `source()`: that asks the bash of this machine for its version, where the script may go
    # to another one.
    text = script.source_template % script.source_vars()
    if as_json():
        emit({"shell": shell, "script": text})
    else:
        click.echo(text)
