"""Lines of progress: one for every 5 %, with the time left."""

from deckard_deploy.system.byte_lines import ByteLines


def test_line_for_every_twentieth_with_time_left():
    said: list[str] = []
    times = iter([0.0, 10.0, 100.0, 200.0])
    lines = ByteLines(said.append, "image   ", lambda: next(times))
    for done in (0, 100, 1000, 1001, 2000):
        lines.show(done * 10**6, 2000 * 10**6)
    assert said == [
        "image    0.1 of 2.0 GB, about 3:10 left",
        "image    1.0 of 2.0 GB, about 1:40 left",
        "image    2.0 of 2.0 GB",
    ]


def test_work_of_unknown_size_has_no_line():
    said: list[str] = []
    ByteLines(said.append, "image   ").show(5, 0)
    assert said == []
