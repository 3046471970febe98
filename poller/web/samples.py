"""Turns the state of the service into samples for Prometheus. Pure."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from poller.printable import printable
from poller.web.metrics import Sample
from poller.web.service_status import ServiceStatus, unready


def samples_of(service: ServiceStatus) -> Iterator[Sample]:
    """Yield a sample for each known value: few while Redis is away, none too large for a float."""
    for sample in _samples(service):
        labels = tuple(map(printable, sample.labels))
        with contextlib.suppress(OverflowError):
            yield Sample(sample.metric, float(sample.value), labels)


def _samples(service: ServiceStatus) -> Iterator[Sample]:
    yield Sample("poller_redis_up", service.late or not service.redis)
    yield Sample("poller_ready", not unready(service))
    if service.redis:
        return
    token = service.lease.partition(":")[0]
    yield Sample("poller_lease_held", bool(token))
    if token.isascii() and token.isdigit():
        yield Sample("poller_lease_token", int(token))
    for role, count in Counter(report.role for report in service.reports.values()).items():
        yield Sample("poller_processes", count, (role,))
    yield Sample("poller_stream_entries", service.entries)
    yield Sample("poller_troubles", len(service.troubles))
    for market, held in service.held.items():
        yield Sample("poller_held_figures", held, (market,))
    for gateway in service.gateways:
        yield Sample("poller_gateway_ready", gateway.ready, (gateway.name, gateway.account))
    yield from _rights(service)
    for budget in service.budgets:
        account = (budget.account,)
        yield Sample("poller_budget_used_requests", budget.used, account)
        yield Sample("poller_budget_headroom_requests", max(budget.limit - budget.used, 0), account)
        yield Sample("poller_budget_period_seconds", budget.period, account)
    yield from _markets(service)
    yield from _endpoints(service)


def _rights(service: ServiceStatus) -> Iterator[Sample]:
    resting = {(each.account, each.market) for each in service.resting}
    watched = [str(view.market) for view in service.markets if view.symbols]
    for account in dict.fromkeys(gateway.account for gateway in service.gateways):
        for market in watched:
            is_asked = (account, market) not in resting
            yield Sample("poller_market_right", is_asked, (account, market))


def _markets(service: ServiceStatus) -> Iterator[Sample]:
    for view in service.markets:
        market = (str(view.market),)
        yield Sample("poller_symbols", view.symbols, market)
        if view.day is not None:
            newest = view.market.midnight(view.day).timestamp()
            yield Sample("poller_watermark_timestamp_seconds", newest, market)
        expected = view.market.midnight(view.expected).timestamp()
        yield Sample("poller_watermark_expected_timestamp_seconds", expected, market)
        overdue = 0.0
        if view.due_since is not None:
            overdue = (service.at - view.due_since).total_seconds()
        yield Sample("poller_watermark_overdue_seconds", overdue, market)
        yield Sample("poller_sweep_wanted_symbols", view.wanted, market)
        yield Sample("poller_sweep_covered_symbols", view.covered, market)


def _endpoints(service: ServiceStatus) -> Iterator[Sample]:
    for name, status in service.endpoints.items():
        endpoint = (name,)
        failing = 0.0
        if status.failing_since is not None:
            failing = (service.at - status.failing_since).total_seconds()
        yield Sample("poller_webhook_disabled", bool(status.disabled), endpoint)
        yield Sample("poller_webhook_failing_seconds", failing, endpoint)
        yield Sample("poller_webhook_unread_entries", status.lag, endpoint)
        yield Sample("poller_webhook_waiting_deliveries", status.waiting, endpoint)
        yield Sample("poller_webhook_dead_letters", status.dead, endpoint)
