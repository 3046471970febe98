"""The survey as numbers for Prometheus. Pure."""

from collections import Counter
from collections.abc import Iterator

from poller.service.metrics import Reading, midnight
from poller.web.survey import Survey, unready


def readings(survey: Survey) -> Iterator[Reading]:
    """Yield what is known; while Redis is away that is little, and what is not known is absent."""
    yield Reading("poller_redis_up", not survey.redis)
    yield Reading("poller_ready", not unready(survey))
    if survey.redis:
        return
    token = survey.lease.partition(":")[0]
    yield Reading("poller_lease_held", bool(token))
    if token.isdigit():
        yield Reading("poller_lease_token", int(token))
    for role, count in Counter(report.role for report in survey.reports.values()).items():
        yield Reading("poller_processes", count, (role,))
    yield Reading("poller_stream_entries", survey.entries)
    yield Reading("poller_troubles", len(survey.troubles))
    for market, held in survey.held.items():
        yield Reading("poller_held_figures", held, (market,))
    for gateway in survey.gateways:
        yield Reading("poller_gateway_ready", gateway.ready, (gateway.name, gateway.account))
    for budget in survey.budgets:
        account = (budget.account,)
        yield Reading("poller_budget_used_requests", budget.used, account)
        yield Reading(
            "poller_budget_headroom_requests", max(budget.limit - budget.used, 0), account
        )
        yield Reading("poller_budget_period_seconds", budget.period, account)
    yield from _markets(survey)
    yield from _endpoints(survey)


def _markets(survey: Survey) -> Iterator[Reading]:
    for view in survey.markets:
        market = (str(view.market),)
        yield Reading("poller_symbols", view.symbols, market)
        if view.day is not None:
            newest = midnight(view.market, view.day)
            yield Reading("poller_watermark_timestamp_seconds", newest, market)
        expected = midnight(view.market, view.expected)
        yield Reading("poller_watermark_expected_timestamp_seconds", expected, market)
        overdue = 0.0
        if view.due_since is not None:
            overdue = (survey.at - view.due_since).total_seconds()
        yield Reading("poller_watermark_overdue_seconds", overdue, market)
        yield Reading("poller_sweep_wanted_symbols", view.wanted, market)
        yield Reading("poller_sweep_covered_symbols", view.covered, market)


def _endpoints(survey: Survey) -> Iterator[Reading]:
    for name, status in survey.endpoints.items():
        endpoint = (name,)
        failing = 0.0
        if status.failing_since is not None:
            failing = (survey.at - status.failing_since).total_seconds()
        yield Reading("poller_webhook_disabled", bool(status.disabled), endpoint)
        yield Reading("poller_webhook_failing_seconds", failing, endpoint)
        yield Reading("poller_webhook_unread_entries", status.lag, endpoint)
        yield Reading("poller_webhook_waiting_deliveries", status.waiting, endpoint)
        yield Reading("poller_webhook_dead_letters", status.dead, endpoint)
