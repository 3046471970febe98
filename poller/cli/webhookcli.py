"""The `webhook` commands: show and test endpoints, and deliver events again."""

from datetime import datetime

from cyclopts import App

from poller.cli import webhooks
from poller.cli.options import ConfigFile, aware, load_config
from poller.cli.runner import WRONG, CommandFailed, finish

webhook = App(
    name="webhook", help="Show the endpoints and their state; test, replay, enable, forget."
)


@webhook.command(name="list")
def list_(*, json: bool = False, config: ConfigFile = None) -> None:
    """List the endpoints: state, lag, last success, last error, next attempt.

    Args:
        json: one JSON object a line
        config: TOML file
    """
    finish(webhooks.print_states(load_config(config, reading=True), as_json=json))


@webhook.command(name="test")
def try_out(name: str, /, *, config: ConfigFile = None) -> None:
    """Send a signed test event to an endpoint, now and once.

    Args:
        name: the endpoint
        config: TOML file
    """
    finish(webhooks.test(load_config(config), name))


@webhook.command
def replay(
    name: str,
    /,
    *,
    id: tuple[str, ...] = (),  # noqa: A002  the option's name
    since: datetime | None = None,
    until: datetime | None = None,
    config: ConfigFile = None,
) -> None:
    """Deliver events again, in order, with their original ids.

    Args:
        name: the endpoint
        id: an event's id, like HK.00700:2026-04-30:0; may be given several times
        since: everything the endpoint selects that was observed from then on; UTC unless it names
            its time zone
        until: and before then
        config: TOML file
    """
    if bool(id) == (since is not None):
        raise CommandFailed(WRONG, ["say what: either --id EVENT, or --since TIME [--until TIME]"])
    times = (aware(since), aware(until))
    if times[0] and times[1] and times[0] >= times[1]:
        raise CommandFailed(WRONG, [f"--until {until}: give a time after --since {since}"])
    finish(webhooks.replay(load_config(config), name, id, *times))


@webhook.command
def dead(
    name: str, /, *, requeue: bool = False, json: bool = False, config: ConfigFile = None
) -> None:
    """List the events an endpoint never accepted, with every attempt.

    Args:
        name: the endpoint
        requeue: deliver them all again, with their attempts reset
        json: one JSON object a line
        config: TOML file
    """
    finish(
        webhooks.dead(load_config(config, reading=not requeue), name, requeue=requeue, as_json=json)
    )


@webhook.command
def enable(name: str, /, *, config: ConfigFile = None) -> None:
    """Send to an endpoint at once that is disabled, or whose retries wait.

    Args:
        name: the endpoint
        config: TOML file
    """
    finish(webhooks.enable(load_config(config), name))


@webhook.command
def forget(name: str, /, *, config: ConfigFile = None) -> None:
    """Remove everything stored of an endpoint that is no longer configured.

    Args:
        name: the endpoint
        config: TOML file
    """
    finish(webhooks.forget(load_config(config, reading=True), name))
