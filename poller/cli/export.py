"""`poller export`: writes the histories of many symbols to one file, atomically."""

import contextlib
import csv
import importlib
import io
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any, Final, Literal, Protocol

from cyclopts import Parameter

from poller import show
from poller.cli.history import unknown
from poller.cli.options import ConfigFile, aware, codes_of, load_config
from poller.cli.runner import FAILED, WRONG, CommandFailed, finish, print_stderr
from poller.cli.stores import Failure, beside, instruments_of, store_of
from poller.errors import how_to_install
from poller.model import Code, Instrument, to_json
from poller.settings.config import Config
from poller.store.archive import Archive, Archived
from poller.store.plain import DESCRIBED, TEXTS, coded_rows, described, history_names, whole_names

INSTALL: Final = how_to_install("parquet", "pyarrow")

_BATCH: Final = 50
"""Symbols written at once: a row group of Parquet, some thousand rows."""

_NAME_ROOM: Final = 200  # characters of the output's name that its temporary file keeps


class _Writer(Protocol):
    """Writes one format."""

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows."""

    def close(self) -> None:
        """Finish the file."""


def export(
    codes: tuple[str, ...] = (),
    /,
    *,
    format: Literal["csv", "json", "parquet"],  # noqa: A002  the option's name
    as_known_at: datetime | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    config: ConfigFile = None,
) -> None:
    """Write the histories of many symbols to one file, newest day of each first.

    Args:
        codes: HK.00700 US.AAPL …; all that are known, if none is named
        format: csv, json (an object a line), or parquet, which needs the extra [parquet]
        as_known_at: what was known at this time; UTC unless it names its time zone
        output: the file; stdout, if absent
        config: TOML file
    """
    symbols = codes_of(codes) if codes else ()
    settings = load_config(config, reading=True)
    finish(_export(settings, symbols, format, aware(as_known_at), output))


async def _export(
    config: Config,
    codes: Sequence[Code],
    form: str,
    moment: datetime | None,
    output: Path | None,
) -> None:
    """Write what is known of these symbols or all, or was at `moment`, to a file or stdout.

    Vintages that cannot be read are left out; Failure, raised at the end, names them.
    """
    if output is not None:
        output = _checked(output)
    elif form == "parquet":
        raise CommandFailed(
            WRONG, ["--format parquet: name a file with -o, like -o history.parquet"]
        )
    if form == "parquet":
        _pyarrow()
    async with store_of(config, existing=True) as store, beside(store, Archive) as archive:
        wanted = codes or await archive.codes()
        if not wanted:
            raise Failure("nothing is known of any symbol yet; see: poller watch list")
        problems = list[str]()
        instruments = await instruments_of(store, wanted, problems)
        with destination(output) as file:
            writer = _writer(form, file, wanted)
            rows, found = await _write(archive, wanted, moment, writer, instruments)
            # without named codes, symbols first seen after that moment are no problem
            absent = () if moment is not None and not codes else _absent(found, moment)
            problems += [*(line for each in found for line in each.unreadable), *absent]
            if not rows:
                raise Failure("\n".join(problems) or f"nothing was known at {moment}")
    if output is not None:
        symbols = len(wanted) - sum(not each.vintages for each in found)
        print_stderr(f"{rows:,} rows of {symbols:,} symbols are in {output}")
    if problems:
        raise Failure("\n".join(problems))


async def _write(
    archive: Archive,
    codes: Sequence[Code],
    moment: datetime | None,
    writer: _Writer,
    instruments: Mapping[Code, Instrument],
) -> tuple[int, list[Archived]]:
    """Write all rows; return how many, and the symbols that are absent or partly unreadable."""
    written, lacking = 0, []
    batch: list[dict[str, Any]] = []
    with show.progress_bar("symbols, {task.fields[rows]:,} rows") as bar:
        task = bar.add_task("export", total=len(codes), rows=0)
        done = 0
        async for each in archive.histories(codes, moment):
            known = instruments.get(each.code, Instrument())
            rows = coded_rows(each.code, each.vintages)
            batch += described(rows, each.vintages, known)
            if each.unreadable or not each.vintages:
                lacking.append(each)
            done += 1
            if done % _BATCH == 0 or done == len(codes):
                writer.write(batch)
                written += len(batch)
                batch = []
                bar.update(task, completed=done, rows=written)
    writer.close()
    return written, lacking


def _absent(found: Sequence[Archived], moment: datetime | None) -> list[str]:
    return [unknown(each.code, moment) for each in found if not (each.vintages or each.unreadable)]


def _writer(form: str, file: IO[bytes], codes: Sequence[Code]) -> _Writer:
    names = ["code", *history_names(codes), *DESCRIBED]
    match form:
        case "csv":
            return _Csv(file, names)
        case "json":
            return _JsonLines(file)
        case _:
            return _Parquet(file, names)


class _Csv:
    """Comma-separated values with a header; absent figures are empty."""

    def __init__(self, file: IO[bytes], names: Sequence[str]) -> None:
        self._file = file
        self._text = io.StringIO()
        self._rows = csv.DictWriter(self._text, names, lineterminator="\n")
        self._rows.writeheader()

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """See `_Writer`."""
        self._rows.writerows(rows)
        self._file.write(self._text.getvalue().encode())
        self._text.seek(0)
        self._text.truncate()

    def close(self) -> None:
        """See `_Writer`."""


class _JsonLines:
    """One JSON object per line, with the columns of its market."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """See `_Writer`."""
        self._file.write("".join(f"{to_json(row)}\n" for row in rows).encode())

    def close(self) -> None:
        """See `_Writer`."""


class _Parquet:
    """Typed columns, one row group per batch."""

    def __init__(self, file: IO[bytes], names: Sequence[str]) -> None:
        arrow, parquet = _pyarrow()
        self._arrow = arrow
        kinds = {
            **dict.fromkeys(TEXTS, arrow.string()),
            "observed_at": arrow.timestamp("ms", tz="UTC"),
            **dict.fromkeys(whole_names(), arrow.int64()),
        }
        self._schema = arrow.schema([(name, kinds.get(name, arrow.float64())) for name in names])
        self._file = parquet.ParquetWriter(file, self._schema)

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """See `_Writer`."""
        if not rows:
            return
        typed = [row | {"observed_at": datetime.fromisoformat(row["observed_at"])} for row in rows]
        self._file.write_table(self._arrow.Table.from_pylist(typed, schema=self._schema))

    def close(self) -> None:
        """See `_Writer`."""
        self._file.close()


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise CommandFailed(FAILED, [f"--format parquet needs pyarrow: {INSTALL}"]) from None


def _checked(output: Path) -> Path:
    """Return the real path of the output; raises CommandFailed if it cannot be written."""
    try:
        real = output.resolve()  # so that a symbolic link is kept
    except RuntimeError:
        raise CommandFailed(WRONG, [f"-o {output}: the link leads to itself"]) from None
    problem = None
    if real.is_dir():
        problem = "it is a directory; name a file"
    elif real.exists() and not real.is_file():
        problem = "it is not a regular file; leave -o out to write to stdout"
    elif not real.parent.is_dir():
        problem = f"there is no directory {real.parent}"
    elif not os.access(real.parent, os.W_OK):
        problem = f"nothing may be written in {real.parent}"
    if problem is not None:
        raise CommandFailed(WRONG, [f"-o {output}: {problem}"])
    return real


@contextlib.contextmanager
def destination(output: Path | None) -> Iterator[IO[bytes]]:
    """Yield stdout, or a temporary file that is renamed to `output` on success, else removed."""
    if output is None:
        yield sys.stdout.buffer
        return
    part = output.with_name(f".{output.name[:_NAME_ROOM]}.{secrets.token_hex(4)}.part")
    with part.open("xb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.replace(output)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
