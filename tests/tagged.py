"""`python -m tests.tagged v1.2.3`: refuses a tag that is not this version's."""

import sys
from pathlib import Path

from poller import __version__


def complaint(tag: str, change_log: str) -> str | None:
    """Return what is wrong with a tag of this version, or None."""
    if tag != f"v{__version__}":
        return f"{tag}: the package says {__version__}: tag v{__version__}, or change __version__"
    if f"\n## [{__version__}]" not in f"\n{change_log}":
        return f"CHANGELOG.md has no section [{__version__}]: give Unreleased that number"
    return None


def main() -> int:
    """Return 0, or 1 with a line."""
    (tag,) = sys.argv[1:] or ("",)
    problem = complaint(tag, Path("CHANGELOG.md").read_text(encoding="utf-8"))
    if problem is not None:
        sys.stderr.write(f"{problem}\n")
    return int(problem is not None)


if __name__ == "__main__":
    sys.exit(main())
