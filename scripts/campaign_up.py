#!/usr/bin/env python3
"""Rounds of many `up`s at once: python scripts/campaign_up.py [ROUNDS] [AT_ONCE]. CI runs one round of eight."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.unit.running.crowd import crowd
from tests.unit.running.world import World


def main(rounds: int = 20, at_once: int = 50) -> None:
    slowest, unnamed = 0.0, 0
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            world = World(Path(name))
            try:
                left = crowd(world, Path(name), at_once)
                if sorted(one.code for one in left) != [0, *[8] * (at_once - 1)] or len(world.processes()) != 2:
                    sys.exit(f"round {number + 1}: {left}")
            finally:
                world.end()
        refused = [one for one in left if one.code == 8]
        slowest = max(slowest, *(one.took_s for one in refused))
        unnamed += sum(" held by pid " not in one.said for one in refused)
        print(f"round {number + 1}: 1 server, {len(refused)} left with exit 8, slowest so far {slowest:.2f} s")
    print(f"{rounds} rounds of {at_once}: slowest {slowest:.2f} s, {unnamed} could not name the holder yet")


main(*map(int, sys.argv[1:]))
