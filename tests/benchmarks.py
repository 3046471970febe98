"""BENCHMARKS.md, section by section: each benchmark replaces its own."""

import re
from pathlib import Path

FILE = Path("BENCHMARKS.md")
HEAD = "| what | ours | bare | ratio | goal |\n|---|---|---|---|---|\n"


def row(what: str, ours: float, bare: float, goal: str) -> str:
    """Return one row of a table that begins with HEAD."""
    return f"| {what} | {ours:.4g} | {bare:.4g} | **{ours / bare:.2f}** | {goal} |\n"


def write(title: str, text: str) -> None:
    """Put `text` below `title`, in place of what was there, or at the end."""
    before = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
    names = re.findall(r"(?m)^#+ .*$", before)
    texts = re.split(r"(?m)^#+ .*$", before)[1:]
    sections = dict(zip(names, texts, strict=True)) | {title: text}
    whole = "".join(f"{name}\n\n{body.strip()}\n\n" for name, body in sections.items())
    FILE.write_text(whole.rstrip() + "\n", encoding="utf-8")
