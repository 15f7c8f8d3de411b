"""When neighbours are told what we hold."""

from __future__ import annotations

from shared_seed.swarm.output import Timing
from shared_seed.swarm.reports import Reports
from shared_seed.swarm.wire import Holding


def told(counts: dict[float, int], seconds: int) -> list[tuple[float, int, bool]]:
    """When, what and whether for the first time, given what is held from when on."""
    reports, out, count = Reports(Timing()), [], 0
    for tenths in range(10 * seconds):
        count = counts.get(tenths / 10, count)
        held = Holding(count, bytes(16), bytes(8))
        due = reports.due(count, lambda held=held: held, tenths / 10)  # type: ignore[misc]
        out += [(tenths / 10, due[0].messages, due[1])] if due else []
    return out


def test_they_are_told_twice() -> None:
    assert told({0.0: 0}, 20) == [(0.0, 0, True), (2.0, 0, False)]
    assert told({0.0: 0, 9.0: 5}, 20) == [(0.0, 0, True), (2.0, 0, False), (11.0, 5, True), (13.0, 5, False)]


def test_they_are_told_when_it_changes_no_more_and_in_the_end_though_it_does() -> None:
    assert told({0.0: 0, 3.9: 1, 4.5: 2}, 6) == [(0.0, 0, True), (2.0, 0, False)]
    flow = {tenths / 10: tenths for tenths in range(300)}
    assert [when for when, _, _ in told(flow, 13)] == [0.0, 4.0, 8.0, 12.0]
