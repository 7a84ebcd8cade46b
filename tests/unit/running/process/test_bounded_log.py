import os

import pytest

from deckard_deploy.running.process.bounded_log import BoundedLog, LogReader


@pytest.mark.parametrize("size", [1, 10, 99, 100, 101, 1000])
def test_log_keeps_newest_bytes_in_two_files(tmp_path, size):
    log = BoundedLog(tmp_path / "log", 100)
    written = b""
    for number in range(400 // size + 3):
        data = bytes([65 + number % 26]) * size
        log.write(data)
        written += data
        assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    log.close()
    assert {path.name for path in tmp_path.iterdir()} <= {"log", "log.1"}
    older = (tmp_path / "log.1").read_bytes()
    assert written.endswith(older + (tmp_path / "log").read_bytes())


def test_each_start_keeps_the_file_before(tmp_path):
    for words in (b"one", b"two", b"three"):
        log = BoundedLog(tmp_path / "log", 100)
        log.write(words)
        log.close()
    assert (tmp_path / "log.1").read_bytes() == b"two"
    assert (tmp_path / "log").read_bytes() == b"three"


def test_failed_rotation_is_retried(tmp_path):
    log = BoundedLog(tmp_path / "log", 10)
    log.write(b"0123456789")
    (tmp_path / "log.1").mkdir()  # so that no file can be renamed to it
    with pytest.raises(OSError, match="directory"):
        log.write(b"lost")
    reader, writer = os.pipe()  # gets the descriptor number of a log that was closed
    with pytest.raises(OSError, match="directory"):
        log.write(b"lost")
    os.write(writer, b"x")
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    os.close(writer)
    (tmp_path / "log.1").rmdir()
    log.write(b"again")
    log.close()
    assert ((tmp_path / "log.1").read_bytes(), (tmp_path / "log").read_bytes()) == (b"0123456789", b"again")


def test_reader_misses_nothing_across_rotations(tmp_path):
    reader = LogReader(tmp_path / "log")
    assert reader.read() == b""
    log = BoundedLog(tmp_path / "log", 50)
    seen = b""
    for number in range(100):
        log.write(b"%04d\n" % number)
        if number % 7 == 0:
            seen += reader.read()
    seen += reader.read()
    log.close()
    reader.close()
    assert seen == b"".join(b"%04d\n" % number for number in range(100))


def test_log_replaces_link(tmp_path):
    (tmp_path / "elsewhere").write_text("safe")
    (tmp_path / "log").symlink_to("elsewhere")
    log = BoundedLog(tmp_path / "log", 50)
    log.write(b"words")
    log.close()
    assert (tmp_path / "elsewhere").read_text() == "safe"
