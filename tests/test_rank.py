"""What the rank of a market tells: when a report is likely, and in which order a sweep asks."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.markets.hk import HONG_KONG
from poller.model import RANK_PAGE, Code, RankPage
from poller.schedule.belief import PROVED, USELESS, Told, move_of
from poller.schedule.hints import Hints
from poller.schedule.order import EXTREME, NEW_POSITION
from poller.schedule.rank import AGAIN, PATIENCE, SETTLED, RankRequest
from poller.schedule.schedule import Answered, Probe, Wait
from poller.schedule.watch import HOLD, RELIED
from tests.test_schedule import INTERVALS, NOW, OLD, SECOND, codes, following

HK, WEEK = HONG_KONG, timedelta(weeks=1)
DUE = INTERVALS.due
Positions = Mapping[Code, int]


class Played:
    """A plan and the hints it gets, under a clock that is set by hand.

    `positions`: what the rank shows. `asked`: the symbols polled, in order.
    """

    def __init__(
        self,
        watched: Sequence[Code],
        positions: Positions,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.plan = following(watched, weights)
        self.hints = Hints(lambda: self.plan.markets)
        self.positions = dict(positions)
        self.now, self.newest = NOW, OLD
        self.asked: list[Code] = []
        self.told: list[Told] = []
        self.looks = 0
        self.poll_all()  # the first look since the start
        self.pass_by(2 * AGAIN * DUE)

    def poll_all(self, day: date | None = None) -> None:
        """Poll whatever is due now; `day`: what the symbols show, if not what they showed."""
        while isinstance(decision := self.plan.next(self.now), Probe):
            self.asked.append(decision.code)
            self.plan.record(decision.code, Answered(day or self.newest), self.now)

    def read_all(self) -> None:
        """Read the pages that are due now."""
        while True:
            self.told += self.hints.tick(self.now)
            request = self.hints.next(self.now, [HK])
            if request is None:
                return
            self.looks += 1
            self.told += self.hints.read(request, self.page(request), self.now)

    def page(self, request: RankRequest) -> RankPage:
        """Return a page of the rank."""
        listed = sorted(
            ((code, shares) for code, shares in self.positions.items() if shares),
            key=lambda one: -one[1],
        )
        return RankPage(len(listed), dict(listed[request.offset : request.offset + RANK_PAGE]))

    def pass_by(self, time: timedelta, *, polled: bool = True) -> None:
        """Let so much time pass, in steps of a second."""
        until = self.now + time
        while self.now < until:
            self.now += SECOND
            self.read_all()
            if polled:
                self.poll_all()

    def report(self, positions: Positions, *, shown: Positions | None = None) -> list[Code]:
        """Let a report appear, and sweep it; returns who was asked, in order.

        `shown`: what the rank shows meanwhile, if not the truth.
        """
        before, self.positions = self.positions, dict(positions if shown is None else shown)
        self.newest += WEEK
        self.asked.clear()
        while self.plan.markets[HK].newest != self.newest or self.plan.outstanding:
            self.read_all()
            while isinstance(decision := self.plan.next(self.now), Probe):
                code = decision.code
                self.asked.append(code)
                shows = self.plan.markets[HK].newest == self.newest
                self.plan.record(code, Answered(self.newest), self.now)
                self.told += self.hints.reported(code, before.get(code, 0), positions.get(code, 0))
                if not shows:
                    break  # the sweep's order is read first
            self.now += SECOND / 10
        return list(self.asked)

    def rest_of_the_week(self) -> None:
        """Let a sweep settle, and be late enough in the next week for its report to be due."""
        self.now += SETTLED * DUE
        self.read_all()
        self.now += WEEK - SETTLED * DUE
        self.pass_by(2 * DUE)


def positions_of(watched: Sequence[Code], shares: int = 1_000_000) -> dict[Code, int]:
    """Return a position of each symbol, all different."""
    return {code: shares + 10 * n for n, code in enumerate(watched)}


def moved(positions: Positions, **by: float) -> dict[Code, int]:
    """Return the positions after some moved; `by`: number of the symbol as `n7` → factor."""
    factors = {f"HK.{int(name[1:]):05}": factor for name, factor in by.items()}
    return {code: round(shares * factors.get(code, 1)) for code, shares in positions.items()}


def test_a_position_that_moved_is_asked_about_at_once() -> None:
    """Nothing else is due; a symbol that moved is asked, and one answer begins the sweep."""
    watched = codes(40)
    played = Played(watched, positions_of(watched))
    played.positions = moved(played.positions, n17=1.2)
    played.asked.clear()
    assert isinstance(played.plan.next(played.now), Wait)
    played.now += DUE / 10
    played.read_all()
    decision = played.plan.next(played.now)
    assert isinstance(decision, Probe)
    assert decision.code == watched[16]
    assert "rank" in decision.reason
    assert [told.begins for told in played.told] == [None]


def test_the_biggest_moves_come_first_and_unmoved_ones_last() -> None:
    """A sweep asks in the order of the moves, whatever the position in the list."""
    watched = codes(100)
    before = positions_of(watched)
    played = Played(watched, before)
    asked = played.report(moved(before, n90=1.8, n3=0.5, n50=1.3, n70=1.1))
    rest = [code for code in asked[1:] if code not in asked[:1]]
    expected = [watched[n - 1] for n in (90, 3, 50, 70)]
    assert [code for code in [*asked[:1], *rest] if code in expected] == sorted(
        expected, key=lambda code: (code != asked[0], expected.index(code))
    )
    assert set(asked[:4]) <= set(expected)


@given(st.lists(st.sampled_from([0, 1, 2, 7, 50, 800]), min_size=60, max_size=60), st.booleans())
@settings(max_examples=30)
def test_a_sweep_asks_by_weight_and_move(percents: list[int], heavy: bool) -> None:  # noqa: FBT001
    """Every symbol is asked once; among usual moves, the heavier ones first."""
    watched = codes(60)
    weights = {"HK.0003*": 4.0} if heavy else {}
    before = positions_of(watched)
    after = {c: s + s * p // 100 for (c, s), p in zip(before.items(), percents, strict=True)}
    played = Played(watched, before, weights)
    asked = played.report(after)
    assert sorted(asked) == sorted(watched)
    usual = [code for code in asked[1:] if move_of(before[code], after[code]) < EXTREME]
    heaviness = [
        (weights.get("HK.0003*", 1.0) if code.startswith("HK.0003") else 1.0)
        * move_of(before[code], after[code])
        for code in usual
    ]
    if not any(percent >= 100 * EXTREME for percent in percents):
        assert all(one >= other / 1.2 for one, other in pairwise(heaviness))


def test_extreme_moves_leave_turns_to_ordinary_ones() -> None:
    """In any five requests of a sweep three are ordinary, so that no market looks at fault."""
    watched = codes(200)
    before = positions_of(watched)
    after = {
        code: shares // 20 if n < 20 else shares + shares // 50
        for n, (code, shares) in enumerate(before.items())
    }
    asked = Played(watched, before).report(after)
    extreme = [move_of(before[code], after[code]) >= EXTREME for code in asked[1:31]]
    assert all(sum(extreme[n : n + 12]) < 6 for n in range(len(extreme) - 12))
    assert sum(extreme) >= 11


def test_a_fault_of_the_source_orders_no_sweep() -> None:
    """Where many moved extremely, `detect` has to see as many as there are; told once."""
    watched = codes(200)
    before = positions_of(watched)
    after = {code: shares * (10 if n % 3 else 1) for n, (code, shares) in enumerate(before.items())}
    played = Played(watched, before)
    asked = played.report(after)
    extreme = [move_of(before[code], after[code]) >= EXTREME for code in asked[1:61]]
    assert 30 <= sum(extreme) <= 50
    assert len([told for told in played.told if "extremely" in told.text]) == 1


def test_who_stopped_reporting_is_asked_last_whatever_its_rank() -> None:
    """Its rank may move on; were it asked first, its misses would end the sweep of the others."""
    watched = codes(120)
    before = positions_of(watched)
    played = Played(watched, before)
    lapsed = set(watched[80:])
    played.pass_by(DUE, polled=False)
    played.newest += WEEK
    played.positions = {c: s if c in lapsed else s + s // 50 for c, s in before.items()}
    for _ in range(5):
        played.read_all()  # else the sweep waits for its order
        while isinstance(decision := played.plan.next(played.now), Probe):
            day = OLD if decision.code in lapsed else played.newest
            played.plan.record(decision.code, Answered(day), played.now)
        played.now += SECOND
    assert played.plan.outstanding == len(lapsed)
    played.now += WEEK
    shown = played.positions
    after = {c: s * 3 // 2 if c in lapsed else s + s // 100 for c, s in shown.items()}
    asked = played.report(after)
    others = [n for n, code in enumerate(asked) if code not in lapsed]
    assert max(others[:80]) < 90


def test_a_position_that_is_gone_from_the_list_has_moved() -> None:
    """Who left the list moved by all of it; who was never in it did not move."""
    watched = codes(80)
    before = {code: shares for code, shares in positions_of(watched).items() if code > "HK.00010"}
    played = Played(watched, before)
    after = {code: shares for code, shares in before.items() if code != "HK.00060"} | {
        watched[0]: 9
    }
    asked = played.report(moved(after, n70=1.1))
    assert {watched[0], watched[59], watched[69]} <= set(asked[:7])


def test_nothing_is_told_of_a_report_that_appeared_before_the_start() -> None:
    """What moved while nobody read is not known: the order is that of weights, nobody is blamed."""
    watched = codes(60)
    before = positions_of(watched)
    played = Played(watched, before)
    fresh = Hints(lambda: played.plan.markets)
    played.hints = fresh
    asked = played.report(moved(before, n40=3.0, n41=2.0))
    assert len(asked) == 60
    assert played.told == []


def test_a_sweep_waits_for_its_order_for_two_seconds_at_most() -> None:
    """Pages that never come hold nothing up for longer."""
    watched = codes(100)
    played = Played(watched, positions_of(watched))
    played.newest += WEEK
    played.now += DUE
    first = played.plan.next(played.now)
    assert isinstance(first, Probe)
    played.plan.record(first.code, Answered(played.newest), played.now)
    played.told += played.hints.tick(played.now)
    assert played.hints.next(played.now, [HK]) is not None
    assert played.plan.next(played.now) == Wait(played.now + HOLD)
    assert isinstance(played.plan.next(played.now + HOLD), Probe)


def test_a_sweep_waits_three_times_at_most() -> None:
    """However slowly the pages of its order come, six seconds are all that it costs."""
    watched = codes(300)
    played = Played(watched, positions_of(watched))
    played.pass_by(DUE, polled=False)
    first = played.plan.next(played.now)
    assert isinstance(first, Probe)
    played.newest += WEEK
    played.plan.record(first.code, Answered(played.newest), played.now)
    held = 0
    for _ in range(60):  # each page takes 1.9 s, one after the other
        played.told += played.hints.tick(played.now)
        request = played.hints.next(played.now, [HK])
        for _ in range(19):
            played.now += SECOND / 10
            decision = played.plan.next(played.now)
            if isinstance(decision, Probe):
                played.plan.record(decision.code, Answered(played.newest), played.now)
            elif played.plan.outstanding:
                held += 1
        if request is not None:
            played.told += played.hints.read(request, played.page(request), played.now)
    assert held / 10 <= 7


def test_rest_ends_whatever_the_rank_had_begun() -> None:
    """No symbol is suspected, no sweep waits, no probe is rarer once the rank is not read."""
    watched = codes(40)
    played = Played(watched, positions_of(watched))
    played.positions = moved(played.positions, n17=1.2)
    played.now += DUE / 10
    played.read_all()
    played.hints.rest([HK])
    played.told += played.hints.tick(played.now)
    queue = played.plan.markets[HK]
    assert not any((queue.waits_for_order, queue.watch.hears_rank, queue.watch.relies_on_rank))
    assert queue.held_until < played.now
    played.poll_all()
    assert isinstance(played.plan.next(played.now + 2 * SECOND), Wait)


def test_a_look_under_way_lets_no_sweep_begin_without_its_order() -> None:
    """A page that was asked for before the report was found says nothing of its order."""
    watched = codes(100)
    played = Played(watched, positions_of(watched))
    played.pass_by(DUE, polled=False)
    while (look := played.hints.next(played.now, [HK])) is None:
        played.now += SECOND
        played.told += played.hints.tick(played.now)
    first = played.plan.next(played.now)
    assert isinstance(first, Probe)
    played.newest += WEEK
    played.plan.record(first.code, Answered(played.newest), played.now)
    played.told += played.hints.read(look, played.page(look), played.now)
    assert played.plan.next(played.now) == Wait(played.now + HOLD)


def test_false_alarms_are_followed_three_times() -> None:
    """A rank that moves for no reason costs a few requests each time, and then none."""
    watched = codes(50)
    played = Played(watched, positions_of(watched))
    spent = []
    for n in range(USELESS + 2):
        played.positions = moved(played.positions, n5=1.1 + n / 10)
        played.asked.clear()
        played.pass_by(PATIENCE * DUE + 2 * DUE)
        spent.append(len(played.asked))
    probes = (PATIENCE * DUE + 2 * DUE) / DUE
    assert all(probes < each < 1.5 * probes for each in spent[:USELESS])
    assert all(each <= probes + 1 for each in spent[USELESS:])
    assert [told.begins for told in played.told if told.begins is not None] == [True]


def test_a_rank_that_tells_first_lets_probes_be_rarer_until_it_does_not() -> None:
    """After some reports in a row; the first one it does not tell of ends that."""
    watched = codes(40)
    played = Played(watched, positions_of(watched))
    for n in range(PROVED):
        assert not played.plan.markets[HK].watch.relies_on_rank
        played.report(moved(played.positions, n7=1.2 + n / 10))
        played.rest_of_the_week()
    queue = played.plan.markets[HK]
    assert queue.watch.relies_on_rank
    played.asked.clear()
    played.pass_by(10 * RELIED * DUE)
    assert (
        len(played.asked) < 5 * RELIED
    )  # an interval is doubled at most where the hour is learned
    truth = moved(played.positions, n7=1.2)
    played.report(truth, shown=played.positions)
    played.pass_by(2 * SECOND)
    assert not queue.watch.relies_on_rank


@pytest.mark.parametrize("shown", ["stale", "other moves"])
def test_a_rank_that_is_wrong_orders_no_sweep_until_it_is_right_again(shown: str) -> None:
    """Told once, and once more when its moves are the reported ones again."""
    watched = codes(60)
    played = Played(watched, positions_of(watched))
    truth = played.positions
    for week in range(2):
        truth = {code: shares + shares // (5 + week) for code, shares in truth.items()}
        lie = (
            played.positions
            if shown == "stale"
            else {code: shares + shares // 200 for code, shares in played.positions.items()}
        )
        played.report(truth, shown=lie)
        played.rest_of_the_week()
    assert [told.begins for told in played.told if told.about == "order"] == [True]
    queue = played.plan.markets[HK]
    assert not queue.waits_for_order
    played.positions = truth
    for week in range(3):
        played.rest_of_the_week()
        truth = {code: shares + shares // (5 + week) for code, shares in truth.items()}
        played.report(truth)
    assert [told.begins for told in played.told if told.about == "order"] == [True, False]


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_nonsense_changes_who_is_asked_first_and_nothing_else(data: st.DataObject) -> None:
    """Whatever a rank shows: a report begins with an answer, and every symbol is asked once."""
    watched = codes(45)
    played = Played(watched, positions_of(watched))
    figure = st.integers(0, 2**64 - 1)
    for _ in range(3):
        shown = {code: data.draw(figure) for code in data.draw(st.sets(st.sampled_from(watched)))}
        played.positions = shown
        played.pass_by(3 * SECOND)
        assert played.plan.markets[HK].newest == played.newest
        assert not played.plan.outstanding
    asked = played.report(positions_of(watched), shown=shown)
    assert sorted(asked) == sorted(watched)


def test_moves() -> None:
    """Without a sign; a new position counts more than any change."""
    assert move_of(100, 100) == move_of(0, 0) == 0
    assert move_of(100, 150) == move_of(100, 50) == 0.5
    assert move_of(100, 0) == 1
    assert move_of(1, 10**9) < move_of(0, 1) == NEW_POSITION


def test_a_clock_set_back_delays_no_look() -> None:
    """After a step back of a week the first page is looked at as often as ever."""
    watched = codes(40)
    played = Played(watched, positions_of(watched))
    played.positions = moved(played.positions, n3=1.5)
    played.pass_by(DUE)
    played.now -= WEEK
    played.looks = 0
    played.pass_by(10 * DUE)
    assert played.looks >= 5


def test_watched_symbols_are_enough() -> None:
    """A reading ends when all watched symbols were seen, before the list does."""
    watched = codes(5)
    others = {Code(f"HK.{n:05}"): 1000 for n in range(5000, 6000)}
    played = Played(watched, {**others, **positions_of(watched)})
    looks = played.looks
    played.report({**others, **moved(positions_of(watched), n2=1.4)})
    assert played.looks - looks <= 6
