"""The systemd unit of a deployment: where it lies, and the commands that enable and remove it.

A user's unit is in ~/.config/systemd/user, root's in /etc/systemd/system. A user's manager starts with the machine only
if lingering is on (loginctl(1), enable-linger); logind records that as a file.
"""

import os
import pwd
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deckard_deploy.errors import EnvironmentUnfitError
from deckard_deploy.system.commands import Say, last_output_line, run
from deckard_deploy.system.files import sync_folder, write_atomically

TIMEOUT_S = 60.0
# A unit that cannot start has failed within a second; a watch that has begun needs longer to find a problem.
SETTLED_S = 3.0
_POLL_S = 0.2
BOOTED = Path("/run/systemd/system")  # sd_booted(3)
_LINGER = Path("/var/lib/systemd/linger")


@dataclass(frozen=True, kw_only=True)
class Service:
    """The unit of one deployment, under the machine's manager or a user's. name: without `.service`."""

    name: str
    system: bool
    folder: Path

    @property
    def file(self) -> Path:
        """The unit's file."""
        return self.folder / f"{self.name}.service"

    @property
    def enabled(self) -> bool:
        """True if the manager starts the unit by itself."""
        target = "multi-user" if self.system else "default"
        return (self.folder / f"{target}.target.wants" / self.file.name).is_symlink()


def service_of(name: str, environment: Mapping[str, str]) -> Service:
    """Return the unit of this name that the caller may write: root's is the machine's."""
    if os.getuid() == 0:
        return Service(name=name, system=True, folder=Path("/etc/systemd/system"))
    configuration = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
    return Service(name=name, system=False, folder=Path(configuration) / "systemd" / "user")


def has_systemd(booted: Path = BOOTED) -> bool:
    """Return True if systemd runs this machine."""
    return booted.is_dir()


def user_name() -> str:
    """Return the caller's name, or the number of a user without one."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def lingers() -> bool:
    """Return True if the caller's manager starts with the machine."""
    return (_LINGER / user_name()).exists()


def install(
    service: Service, text: str, *, environment: Mapping[str, str], say: Say, booted: Path = BOOTED
) -> None:
    """Write, enable and start the unit, and see it run. Raises EnvironmentUnfitError."""
    _require_systemd(booted)
    # systemd reads the unit as another user for the machine, and it holds no secret.
    service.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(service.file, text, mode=0o644)
    _systemctl(service, "daemon-reload", environment=environment, say=say)
    _systemctl(service, "enable", service.file.name, environment=environment, say=say)
    # Not `enable --now`: a unit that runs goes by the new file only after a restart.
    _systemctl(service, "restart", service.file.name, environment=environment, say=say)
    deadline = time.monotonic() + SETTLED_S
    while time.monotonic() < deadline:
        state = _state(service, environment=environment, say=say)
        if state not in ("active", "activating", "reloading"):
            raise EnvironmentUnfitError(f"{service.file.name} is {state}", hint=_journal(service))
        time.sleep(_POLL_S)


def remove(service: Service, *, environment: Mapping[str, str], say: Say, booted: Path = BOOTED) -> bool:
    """Stop, disable and remove the unit. What serves runs on. Return False if there was none."""
    if not service.file.exists():
        return False
    _require_systemd(booted)
    _without_stop_command(service, environment=environment, say=say)
    _systemctl(service, "disable", "--now", service.file.name, environment=environment, say=say)
    service.file.unlink(missing_ok=True)
    sync_folder(service.folder)
    _systemctl(service, "daemon-reload", environment=environment, say=say)
    return True


def enable_lingering(*, environment: Mapping[str, str], say: Say) -> None:
    """Make the caller's manager start with the machine. Raises EnvironmentUnfitError if that is not permitted."""
    done = run(("loginctl", "enable-linger"), environment=environment, say=say, timeout_s=TIMEOUT_S)
    if done.returncode or not lingers():
        raise EnvironmentUnfitError(
            f"lingering cannot be turned on: {last_output_line(done.stderr)}",
            hint=f"sudo loginctl enable-linger {user_name()}",
        )


def _without_stop_command(service: Service, *, environment: Mapping[str, str], say: Say) -> None:
    """Take ExecStop out of a unit of an earlier version: it stops the engine."""
    text = service.file.read_text(encoding="utf-8")
    kept = [line for line in text.splitlines(keepends=True) if not line.startswith("ExecStop=")]
    if "".join(kept) != text:
        write_atomically(service.file, "".join(kept), mode=0o644)
        _systemctl(service, "daemon-reload", environment=environment, say=say)


def _require_systemd(booted: Path) -> None:
    if not has_systemd(booted):
        raise EnvironmentUnfitError(
            "systemd does not run this machine",
            hint="start `deckard-deploy watch` at boot by what it has instead",
        )


def _systemctl(service: Service, *words: str, environment: Mapping[str, str], say: Say) -> str:
    manager = () if service.system else ("--user",)
    done = run(("systemctl", *manager, *words), environment=environment, say=say, timeout_s=TIMEOUT_S)
    if done.returncode:
        raise EnvironmentUnfitError(
            f"systemctl {words[0]}: {last_output_line(done.stderr)}", hint=_journal(service)
        )
    return done.stdout


def _state(service: Service, *, environment: Mapping[str, str], say: Say) -> str:
    words = ("show", "--property=ActiveState,SubState", service.file.name)
    shown = dict(
        line.split("=", 1)
        for line in _systemctl(service, *words, environment=environment, say=say).splitlines()
        if "=" in line
    )
    # A unit that has failed and waits for its next try is `activating (auto-restart)`.
    if shown.get("SubState") == "auto-restart":
        return "failing"
    return shown.get("ActiveState", "unknown")


def _journal(service: Service) -> str:
    return f"journalctl {'' if service.system else '--user '}--unit {service.name} --lines 20"
