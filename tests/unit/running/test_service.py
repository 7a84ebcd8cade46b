"""The unit's file and the commands of systemd. A script stands for systemctl: no systemd runs the tests' machine.

docs/validation/2026-11-30-boot.md has the same with systemd as pid 1.
"""

import os
from pathlib import Path

import pytest

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.running import service
from deckard_deploy.running.service import Service

SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$0.log"
wants=$(dirname "$0")/../units/default.target.wants
case "$*" in
*$(cat "$0.fails" 2>/dev/null || echo none)*) echo "Unit is masked." >&2; exit 1 ;;
*enable*) mkdir -p "$wants" && ln -sf ../x "$wants/deckard-box.service" ;;
*show*) cat "$0.shows" ;;
esac
"""
ACTIVE = "ActiveState=active\nSubState=running\n"


@pytest.fixture
def unit(tmp_path: Path) -> Service:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "systemctl").write_text(SYSTEMCTL)
    (folder / "systemctl").chmod(0o755)
    (folder / "systemctl.shows").write_text(ACTIVE)
    return Service(name="deckard-box", system=False, folder=tmp_path / "units")


def environment(unit: Service) -> dict[str, str]:
    return {"PATH": f"{unit.folder.parent}/bin:/usr/bin:/bin"}


def install(unit: Service, text: str = "[Unit]\n") -> None:
    service.install(unit, text, environment=environment(unit), say=lambda _: None, booted=unit.folder.parent)


def remove(unit: Service) -> bool:
    return service.remove(unit, environment=environment(unit), say=lambda _: None, booted=unit.folder.parent)


def asked(unit: Service) -> list[str]:
    lines = (unit.folder.parent / "bin" / "systemctl.log").read_text().splitlines()
    return [line.removeprefix("--user ") for line in lines if "show" not in line]


@pytest.mark.slow
def test_unit_is_enabled_and_started(unit: Service) -> None:
    assert not unit.enabled
    install(unit)
    assert unit.file.read_text() == "[Unit]\n"
    assert unit.file.stat().st_mode & 0o777 == 0o644
    assert asked(unit) == ["daemon-reload", "enable deckard-box.service", "restart deckard-box.service"]
    assert unit.enabled


@pytest.mark.parametrize(
    ("shows", "says"),
    [
        ("ActiveState=failed\nSubState=failed\n", "deckard-box.service is failed"),
        ("ActiveState=activating\nSubState=auto-restart\n", "deckard-box.service is failing"),
        ("ActiveState=inactive\nSubState=dead\n", "deckard-box.service is inactive"),
    ],
)
def test_unit_that_does_not_run_is_an_error(unit: Service, shows: str, says: str) -> None:
    (unit.folder.parent / "bin" / "systemctl.shows").write_text(shows)
    with pytest.raises(EnvironmentUnfitError, match=says) as caught:
        install(unit)
    assert caught.value.hint == "journalctl --user --unit deckard-box --lines 20"


def test_refusal_of_systemd_is_named(unit: Service) -> None:
    (unit.folder.parent / "bin" / "systemctl.fails").write_text("enable")
    with pytest.raises(EnvironmentUnfitError, match=r"systemctl enable: Unit is masked\."):
        install(unit)


@pytest.mark.slow
def test_removal_takes_stop_command_out_first(unit: Service) -> None:
    """`disable --now` runs ExecStop, and the one of an earlier version stops a healthy engine."""
    install(unit, '[Service]\nExecStart=/x\nExecStop="/x" "down"\n')
    (unit.folder.parent / "bin" / "systemctl.log").unlink()
    assert remove(unit)
    assert asked(unit) == ["daemon-reload", "disable --now deckard-box.service", "daemon-reload"]
    assert not unit.file.exists()
    assert not remove(unit)


def test_machine_without_systemd_gets_no_file(unit: Service, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfitError, match="systemd does not run this machine"):
        service.install(unit, "", environment={}, say=lambda _: None, booted=tmp_path / "absent")
    assert not unit.folder.exists()


def test_unit_of_caller_is_in_own_folder() -> None:
    found = service.service_of("deckard-box", {"HOME": "/home/a"})
    if os.getuid() == 0:
        assert (found.system, found.file) == (True, Path("/etc/systemd/system/deckard-box.service"))
    else:
        assert (found.system, found.file) == (
            False,
            Path("/home/a/.config/systemd/user/deckard-box.service"),
        )
