"""The documentation as a reader meets it: as a site, and as files on a code host.

The site is built strictly: a link, an anchor or a page that leads nowhere fails. A code host
follows links out of `docs/` too and makes anchors by a rule of its own, so those are followed here.
"""

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path()
FILES = (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/**/*.md"))
NAMED = re.compile(r"(?:tests|config|docs|\.github)/[\w./-]+|[A-Z]{4,}\.md|Makefile|Procfile")


def prose(file: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```$", "", file.read_text(encoding="utf-8"))


@cache
def anchors(file: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    heads = re.findall(r"(?m)^#+ (.+)$", prose(file))
    words = (re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads)
    return frozenset(words)


def test_the_workflow_runs_the_two_commands_on_every_python() -> None:
    """Those that the package names, and each command in a step of its own."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [re.fullmatch(r".* :: (3\.\d+)", each) for each in project["classifiers"]]
    assert job["strategy"]["matrix"]["python"] == [found[1] for found in named if found]
    steps = [step["run"] for step in job["steps"] if "run" in step]
    assert steps[-2:] == ["make demo", "make test"]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_link_leads_somewhere(file: Path) -> None:
    """A relative link has its file, and an anchor its heading."""
    text = re.sub(r"`[^`\n]*`", "", prose(file))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        other = file.parent / unquote(path) if path else file
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_file_that_is_named_exists(file: Path) -> None:
    """A path in backticks is one of this repository."""
    for span in re.findall(r"`([^`\n]+)`", prose(file)):
        if NAMED.fullmatch(span):
            assert (ROOT / span).exists(), span


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    """Strictly, and what is built loads nothing from elsewhere."""
    tool = Path(sys.executable).with_name("properdocs")
    command = [str(tool), "build", "--strict", "-f", "config/docs/properdocs.yml"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pages = {page.stem: page.read_text(encoding="utf-8") for page in tmp_path.glob("*.html")}
    assert pages.keys() >= {file.stem for file in ROOT.glob("docs/*.md")}
    for name, html in pages.items():
        assert not re.search(r"<(?:script|link)\b|\bsrc=\"(?:https?:)?//|@import", html), name


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    """The settings are strict enough to notice a missing page and a missing anchor."""
    (tmp_path / "docs").mkdir()
    settings = Path("config/docs/properdocs.yml").read_text(encoding="utf-8")
    settings = re.sub(r"(?ms)^nav:.*?(?=^\w)", "", settings)
    settings = re.sub(r"(?m)^(docs_dir|site_dir|  custom_dir):.*\n", "", settings)
    theme = Path("config/docs/theme").resolve()
    settings = settings.replace("  name: null", f"  name: null\n  custom_dir: {theme}")
    (tmp_path / "site.yml").write_text(settings, encoding="utf-8")
    tool = Path(sys.executable).with_name("properdocs")
    command = [str(tool), "build", "-f", str(tmp_path / "site.yml"), "-d", str(tmp_path / "site")]
    outcomes = []
    for text in ("# Good\n\n[here](#good)\n", "[no page](none.md)\n", "[no anchor](#none)\n"):
        (tmp_path / "docs" / "index.md").write_text(text, encoding="utf-8")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        outcomes.append((done.returncode, done.stderr))
    assert [code for code, _ in outcomes] == [0, 1, 1], outcomes
