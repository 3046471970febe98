"""What is made from the commands: completion, tried in the shells themselves, and the man page."""

import re
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from poller import __version__
from poller.cli.completion import Shell, completion_text
from poller.cli.main import cli
from poller.cli.manual import manual_text
from tests.machine import needs
from tests.test_documents import commands

COMMANDS = dict(commands(cli))

COMPLETING = """\
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
$(complete -p poller | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(folder: Path, *words: str) -> set[str]:
    """Return what bash offers for the last word of a line."""
    script = folder / "poller.bash"
    script.write_text(completion_text("bash"), encoding="utf-8")
    command = ["bash", "--norc", "-c", COMPLETING, "bash", str(script), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return {line for line in done.stdout.splitlines() if line}


def test_bash_completes_what_there_is(tmp_path: Path) -> None:
    """The commands, those of a group, options, their choices, and the names of files."""
    (tmp_path / "mine.toml").touch()
    first = {words.split()[0] for words in COMMANDS}
    assert completed(tmp_path, "poller", "") == first
    assert completed(tmp_path, "poller", "ex") == {"explain", "export"}
    assert completed(tmp_path, "poller", "watch", "") == {"add", "list", "remove"}
    assert {"--json", "--config", "--from"} <= completed(tmp_path, "poller", "tail", "--")
    assert completed(tmp_path, "poller", "history", "--format", "") == {"csv", "json", "table"}
    assert completed(tmp_path, "poller", "completion", "") == {"bash", "fish", "zsh"}
    assert completed(tmp_path, "poller", "check", "--config", "mi") == {"mine.toml"}
    assert completed(tmp_path, "poller", "release", "") == {"HK", "US"}


def in_fish(folder: Path, line: str) -> set[str]:
    """Return what fish offers for a line."""
    script = folder / "poller.fish"
    script.write_text(completion_text("fish"), encoding="utf-8")
    command = ["fish", "--no-config", "-c", 'source $argv[1]; complete -C "$argv[2]"']
    done = subprocess.run(
        [*command, str(script), line], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return {each.partition("\t")[0] for each in done.stdout.splitlines()}


@needs("fish")
def test_fish_offers_files_only_where_they_are_meant(tmp_path: Path) -> None:
    """Among the commands of a group, or their words, a file's name is never right."""
    (tmp_path / "mine.toml").touch()
    assert in_fish(tmp_path, "poller watch ") == {"add", "list", "remove"}
    assert in_fish(tmp_path, "poller release ") == {"HK", "US"}
    for line in ("poller ", "poller webhook ", "poller history "):
        assert "mine.toml" not in in_fish(tmp_path, line)
    for line in ("poller check --config ", "poller config init ", "poller export -o "):
        assert "mine.toml" in in_fish(tmp_path, line)


def test_every_command_with_a_file_as_argument_is_known_to_fish() -> None:
    """Its completion does not tell by itself."""
    found = {
        words
        for words, app in COMMANDS.items()
        for argument in app.assemble_argument_collection(default_parameter=cli.default_parameter)
        if argument.index is not None and argument.hint in {Path, Path | None}
    }
    text = completion_text("fish")
    assert found
    assert {w for w in found if f"using_command {w}' -F\n" not in text} == set()


@needs("bash")
def test_the_other_name_completes_the_same(tmp_path: Path) -> None:
    """`short-interest-poller` is the same program."""
    script = tmp_path / "script"
    script.write_text(completion_text("bash"), encoding="utf-8")
    program = f"source {script}; complete -p short-interest-poller poller"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.replace("short-interest-poller", "poller") == second
    assert completion_text("zsh").startswith("#compdef poller short-interest-poller\n")
    assert completion_text("fish").endswith("complete -c short-interest-poller -w poller\n")


@pytest.mark.parametrize(
    "shell", [pytest.param(shell, marks=needs(shell)) for shell in get_args(Shell)]
)
def test_each_shell_understands_its_script(tmp_path: Path, shell: Shell) -> None:
    """It parses the script, which knows every command."""
    script = tmp_path / "script"
    script.write_text(completion_text(shell), encoding="utf-8")
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = set(re.findall(r"[a-z]+", script.read_text(encoding="utf-8")))
    assert told >= {word for words in COMMANDS for word in words.split()}


def test_the_man_page_has_every_command_and_option() -> None:
    """Each command has a section with all its options; `--config` is described once for all."""
    page = manual_text().replace("\\-", "-")
    sections = dict(
        re.findall(r"(?ms)^\.SS poller ([a-z]+(?: [a-z]+)*)[^\n]*\n(.*?)(?=^\.S)", page)
    )
    assert sections.keys() == COMMANDS.keys()
    for words, app in COMMANDS.items():
        names = {
            name
            for argument in app.assemble_argument_collection(
                default_parameter=cli.default_parameter
            )
            for name in argument.names
            if name.startswith("-") and name != "--config"
        }
        assert {name for name in names if name not in sections[words]} == set(), words
        assert "Args:" not in sections[words]
    assert f"short-interest-poller {__version__}" in page


@needs("man")
def test_man_shows_the_page(tmp_path: Path) -> None:
    """It has nothing to warn of, and shows text that looks like its own language as it is."""
    page = tmp_path / "poller.1"
    page.write_text(manual_text(), encoding="utf-8")
    command = ["man", "--warnings", "--local-file", str(page)]
    done = subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80", "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert re.search(r"poller history \[CODE\.\.\.\] \[OPTION\.\.\.\]", done.stdout)
    assert re.search(r"--format table\|csv\|json", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 80
