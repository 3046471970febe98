"""Makes an HTML page of a template, in the visitor's time zone."""

import re
from typing import Any, Final

import jinja2
from aiohttp import web
from markupsafe import Markup, escape

from poller import __version__
from poller.markets import is_below_threshold
from poller.printable import printable
from poller.web import formatting
from poller.web.sources import SOURCES
from poller.web.zone_choice import zone_of
from poller.web.zones import choices

TEMPLATES: Final = web.AppKey("templates", jinja2.Environment)

LONGEST: Final = 4_000
"""Characters of one text of the page, as in the log."""

FILTERS: Final = (
    *("number", "decimal", "signed", "percent", "ratio", "trend", "direction", "plural"),
    *("cover", "cover_note", "ratio_source", "short", "split", "difference", "zscore"),
    *("ago", "due", "moment", "days_old", "at_work", "left", "clock"),
)
"""The functions of `formatting` that templates use."""


_WHOLE: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{2}:[0-9]{2}(:[0-9]{2}(?![0-9]))?"
    r"( [A-Z]{2,5}\b(?![+-]))?",
    re.ASCII,
)


def templates() -> jinja2.Environment:
    """Return the templates; they escape all values."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("poller.web"),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in FILTERS:
        made.filters[name] = getattr(formatting, name)
    made.filters["unbroken"] = unbroken
    made.tests["below_threshold"] = is_below_threshold
    made.globals |= {"version": __version__}
    return made


def _shown(value: object) -> object:
    """Return a value for a template, made printable: nothing in it may reverse the page's text.

    Markup is our own. Spaces stay: some of ours are non-breaking.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    spaced = value.replace("\u00a0", " ").replace("\u202f", " ").replace("\n", " ")
    return value if spaced == printable(spaced, LONGEST) else printable(value, LONGEST)


def unbroken(text: object) -> Markup:
    """Return a text as markup in which each date and each time of day stays on one line.

    Everything in it is escaped. A line may still end between a date and the time that follows.
    """
    return Markup(  # noqa: S704  of what is escaped, what matches has no markup
        _WHOLE.sub(r'<span class="value">\g<0></span>', str(escape(_shown(text))))
    )


def rendered(request: web.Request, template: str, **values: Any) -> web.Response:  # noqa: ANN401
    """Return the page that a template makes of these values."""
    now, zone = request.app[SOURCES].now(), zone_of(request)
    values |= {"now": now, "zone": zone, "zones": choices(request.query, zone)}
    text = request.app[TEMPLATES].get_template(template).render(**values)
    # a report may contain lone surrogates
    body = text.encode(errors="replace")
    return web.Response(body=body, content_type="text/html", charset="utf-8")
