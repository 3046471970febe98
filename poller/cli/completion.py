"""`poller completion`: what a shell has to know to complete commands and options."""

import sys
from typing import Literal

from poller.cli.main import cli

Shell = Literal["bash", "zsh", "fish"]


def completion(shell: Shell, /) -> None:
    """Print what makes a shell complete the commands and their options.

    Args:
        shell: which one; docs/installing.md says where the text belongs
    """
    sys.stdout.write(completion_text(shell))


def completion_text(shell: Shell) -> str:
    """Return the text, made from the commands as they are."""
    return f"{cli.generate_completion(prog_name=cli.name[0], shell=shell).rstrip()}\n"
