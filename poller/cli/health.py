"""`poller health`: the answer of `/readyz` as an exit code."""

import asyncio
import os
from typing import Final

import aiohttp

from poller import show
from poller.cli.options import ConfigFile, load_config
from poller.cli.runner import WRONG, CommandFailed, finish
from poller.cli.stores import Failure
from poller.codec import read_json
from poller.errors import Unreadable
from poller.settings.config import Web

LIMIT: Final = 5.0
"""Seconds for the whole answer: a health check must end before the next begins."""

_MOST: Final = 64 * 1024
"""Bytes of an answer: even if everything fails, the reasons have a few thousand."""

_WHERE: Final = "is poller run started? web.host and web.port say where it is asked"


def health(*, config: ConfigFile = None) -> None:
    """Ask the page whether the service is ready; the exit code is 0 or, with reasons, 1.

    Args:
        config: TOML file
    """
    settings = load_config(config, only=("web", "redis.namespace"))
    finish(ask_ready(settings.web, settings.redis.namespace))


async def ask_ready(web: Web, namespace: str, *, limit: float = LIMIT) -> None:
    """Ask the page whether the service is ready, and print why it is not; then raises Failure.

    So it does where the page is that of a service with another namespace than `namespace`.
    `limit`: seconds to wait.
    """
    if not web.port:
        raise CommandFailed(WRONG, ["web.port: 0 is any free port; write the one to ask at"])
    host = f"[{web.host}]" if ":" in web.host else web.host
    url = f"http://{host}:{web.port}/readyz"
    token = None if web.token is None else web.token.get_secret_value()
    status, body = await _asked(url, token, limit)
    try:
        answer = read_json(body.decode())
        ready = answer["ready"] is True
        other = answer.get("namespace", namespace)  # an older page does not tell
        lines = [str(line) for line in [*answer["reasons"], *answer.get("defects", ())]]
    except (Unreadable, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        raise Failure(_unexpected(url, status)) from None
    if other != namespace:
        raise Failure(
            f"{url} is the page of another service, with redis.namespace {other}; this "
            f"configuration has {namespace}: give each service a web.port of its own"
        )
    show.say("ready" if ready else "not ready")
    for line in lines:
        show.say(line)
    if not ready:
        raise Failure(f"not ready, as {url} says")


async def _asked(url: str, token: str | None, limit: float) -> tuple[int, bytes]:
    """Return the status and the first `_MOST` bytes of the body; raises Failure."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(limit), headers=headers) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            try:
                return response.status, await response.content.readexactly(_MOST)
            except asyncio.IncompleteReadError as whole:
                return response.status, whole.partial
    except TimeoutError:
        raise Failure(f"{url} does not answer within {limit:g} s") from None
    except (aiohttp.ClientConnectorError, OSError) as problem:
        number = problem.errno or 0  # negative if the name does not resolve
        reason = os.strerror(number) if number > 0 else problem.strerror or str(problem)
        raise Failure(f"nobody answers at {url} ({reason}); {_WHERE}") from None
    except aiohttp.ClientError as problem:
        raise Failure(f"the answer of {url} is not HTTP ({problem}); {_WHERE}") from None


def _unexpected(url: str, status: int) -> str:
    match status:
        case 401 | 403:
            return f"{url} refuses the token: web.token_file must hold the running service's"
        case 421:
            return f"{url} answers to localhost only: set web.host as the running service has it"
        case 429:
            return f"{url} refuses this address after too many wrong tokens; wait a minute"
        case _:
            return f"{url} answers {status}, but not as the page of the poller; {_WHERE}"
