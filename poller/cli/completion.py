"""`poller completion`: what a shell has to know to complete commands and options."""

import sys
from typing import Final, Literal

from poller.cli.main import cli

_LONG: Final = "short-interest-poller"
"""The program's other name."""

_TAKE_FILES: Final = ("config init",)
"""Commands with an argument that is a file; of options each shell's text knows it."""

Shell = Literal["bash", "zsh", "fish"]


def completion(shell: Shell, /) -> None:
    """Print what makes a shell complete the commands and their options.

    Args:
        shell: which one; docs/installing.md says where the text belongs
    """
    sys.stdout.write(completion_text(shell))


def completion_text(shell: Shell) -> str:
    """Return the text, made from the commands as they are, for both names of the program."""
    name = cli.name[0]
    text = cli.generate_completion(prog_name=name, shell=shell).rstrip()
    match shell:
        case "bash":
            return f"{text} {_LONG}\n"  # its last line: complete -F _poller poller
        case "zsh":
            return f"{text.replace(f'#compdef {name}', f'#compdef {name} {_LONG}', 1)}\n"
        case "fish":
            files = "".join(
                f"complete -c {name} -n '__fish_{name}_using_command {words}' -F\n"
                for words in _TAKE_FILES
            )
            # no files but where an option or argument is one
            return f"complete -c {name} -f\n{text}\n{files}complete -c {_LONG} -w {name}\n"
