"""Terminal output: one line per event, tables, progress bars. Reads only."""

from poller.show.found import Gaps, print_gaps, print_held
from poller.show.lines import entry_line, release_line
from poller.show.tables import (
    change_cells,
    cover_cells,
    decimal_cells,
    print_figures,
    print_table,
    ratio_cells,
    shares_cell,
)
from poller.show.terminal import (
    console,
    progress_bar,
    say,
    say_json,
)

__all__ = [
    "Gaps",
    "change_cells",
    "console",
    "cover_cells",
    "decimal_cells",
    "entry_line",
    "print_figures",
    "print_gaps",
    "print_held",
    "print_table",
    "progress_bar",
    "ratio_cells",
    "release_line",
    "say",
    "say_json",
    "shares_cell",
]
