"""Durations of starts with empty and kept caches."""

from typing import Literal

from deckard_deploy.measuring.startup_records import TimedStart, cells


def start(caches: Literal["empty", "kept"], **phases: float) -> TimedStart:
    return TimedStart(caches=caches, total_s=sum(phases.values()), phases=phases)


def test_phases_are_in_order_with_saved_time():
    starts = [start("empty", weights=3.0, compile=60.0), start("kept", weights=3.0, compile=4.0)]
    assert cells(starts, ("weights", "compile", "autotune")) == [
        ("phase", "caches empty", "kept", "saved"),
        ("weights", "3.0 s", "3.0 s", "0.0 s"),
        ("compile", "60.0 s", "4.0 s", "56.0 s"),
        ("total", "63.0 s", "7.0 s", "56.0 s"),
    ]


def test_several_starts_show_median_and_range():
    starts = [start("empty", weights=each) for each in (1.0, 2.0, 9.0)]
    starts += [start("kept", weights=1.0)]
    assert cells(starts, ("weights",))[1] == ("weights", "2.0 s (1.0 to 9.0)", "1.0 s", "1.0 s")


def test_phase_of_one_side_is_shown():
    starts = [start("empty", autotune=5.0), start("kept", weights=1.0)]
    assert cells(starts, ("autotune",))[1] == ("autotune", "5.0 s", "0.0 s", "5.0 s")
