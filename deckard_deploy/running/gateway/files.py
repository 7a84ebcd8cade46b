"""The folder that a gateway reads: its access rules, and its certificate.

<deployment>/gateway/        0700; in docker it is mounted read-only and belongs to the user in the container
  access.conf                0600  keys.access
  certificate.pem, .key      0600  the user's, copied, or self-signed
"""

import os
import shutil
import socket
import ssl
import stat
from collections.abc import Mapping
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError, IntegrityError
from deckard_deploy.planning.plan import Gateway, LaunchPlan
from deckard_deploy.running.gateway.keys import Keys
from deckard_deploy.system.commands import Say, last_output_line, run
from deckard_deploy.system.files import (
    private_folder,
    read_regular,
    translating_write_errors,
    write_atomically,
)

ACCESS, CERTIFICATE, CERTIFICATE_KEY = "access.conf", "certificate.pem", "certificate.key"
_NAMES_FILE = "certificate.names"  # only of a self-signed certificate
# The maximum that some TLS clients accept (Apple, "Requirements for trusted certificates", HT210176).
_VALID_DAYS = 825


def write_gateway_files(plan: LaunchPlan, keys: Keys, *, environment: Mapping[str, str], say: Say) -> bool:
    """Write all files that the plan's gateway reads. Return True if any of them changed.

    Raises BadInputError (an invalid certificate), IntegrityError, EnvironmentUnfitError.
    """
    gateway = plan.gateway
    if gateway is None:
        return False
    folder = private_folder(Path(gateway.folder))
    with keys.lock():
        changed = _write_if_changed(folder / ACCESS, access_of(plan, keys))
    if gateway.tls and _write_certificate(plan, gateway, folder, environment=environment, say=say):
        changed = True
    _change_owner(folder, gateway)
    return changed


def access_of(plan: LaunchPlan, keys: Keys) -> str:
    """Return the access.conf of the plan's gateway: clients' keys are for the front of replicas."""
    return keys.access(own_only=plan.role == "replica")


def renew_access(folder: Path, keys: Keys) -> None:
    """Rewrite access.conf with the current keys, if this deployment has a gateway. Not for a replica's.

    The file keeps its mode, and belongs to the owner of its folder, or else to its owner so far: a gateway that
    a person has started reads it as another user.
    """
    path = folder / ACCESS
    with keys.lock():
        if not path.is_file() or read_regular(path) == keys.access():
            return
        before = path.stat()
        write_atomically(path, keys.access(), mode=stat.S_IMODE(before.st_mode))
        if os.getuid() == 0:
            owner = folder.stat() if folder.stat().st_uid else before
            with translating_write_errors(path):
                os.chown(path, owner.st_uid, owner.st_gid)


def require_matching_pair(plan: LaunchPlan) -> None:
    """Raise BadInputError if the user's certificate and key are unreadable or do not match."""
    gateway = plan.gateway
    if gateway and gateway.tls and gateway.certificate and gateway.certificate_key:
        _read_pair(Path(gateway.certificate), Path(gateway.certificate_key))


def fingerprint(plan: LaunchPlan) -> str | None:
    """Return the SHA-256 of the gateway's certificate in hex, None without TLS. Raises IntegrityError."""
    if plan.gateway is None or not plan.gateway.tls:
        return None
    path = Path(plan.gateway.folder) / CERTIFICATE
    try:
        certificate = ssl.PEM_cert_to_DER_cert(_first(read_regular(path)))
    except (FileNotFoundError, ValueError) as error:
        raise IntegrityError(f"{path} is missing or damaged", hint="deckard-deploy up") from error
    return sha256(certificate).hexdigest()


def _write_if_changed(path: Path, text: str) -> bool:
    if path.is_file() and read_regular(path) == text:
        return False
    write_atomically(path, text)
    return True


def _write_certificate(
    plan: LaunchPlan, gateway: Gateway, folder: Path, *, environment: Mapping[str, str], say: Say
) -> bool:
    if gateway.certificate is None or gateway.certificate_key is None:
        return _write_self_signed(plan, folder, environment=environment, say=say)
    certificate, key = _read_pair(Path(gateway.certificate), Path(gateway.certificate_key))
    (folder / _NAMES_FILE).unlink(missing_ok=True)  # from here on the certificate is the user's
    new_certificate = _write_if_changed(folder / CERTIFICATE, certificate)
    new_key = _write_if_changed(folder / CERTIFICATE_KEY, key)
    return new_certificate or new_key


def _read_pair(certificate: Path, key: Path) -> tuple[str, str]:
    """Return the text of both files. Raises BadInputError if they are unreadable or do not match."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_no_password)
        return certificate.read_text(), key.read_text()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise BadInputError(
            f"{certificate} and {key} are no certificate and key for each other: {reason}",
            hint=f"openssl x509 -in {certificate} -noout -subject -enddate",
        ) from error


def _no_password() -> str:
    raise ValueError("the key is encrypted, and nginx could not ask for its password")


def _write_self_signed(plan: LaunchPlan, folder: Path, *, environment: Mapping[str, str], say: Say) -> bool:
    """Create a self-signed certificate, and return True, unless a valid one for the same names exists.

    Clients may trust the existing one.
    """
    names = _alternative_names(plan.address)
    if _is_valid(folder, names, environment):
        return False
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
    subject = ("-subj", f"/CN={plan.deployment}", "-addext", f"subjectAltName={names}")
    output = ("-keyout", str(folder / "new.key"), "-out", str(folder / "new.pem"))
    done = run(
        ("openssl", "req", "-x509", *key, "-days", str(_VALID_DAYS), *subject, *output),
        environment=environment,
        say=say,
        timeout_s=30,
        folder=folder,
    )
    if done.returncode:
        raise EnvironmentUnfitError(f"openssl: {last_output_line(done.stderr)}", hint="openssl version")
    for name, temporary in ((CERTIFICATE, "new.pem"), (CERTIFICATE_KEY, "new.key")):
        write_atomically(folder / name, read_regular(folder / temporary))
        (folder / temporary).unlink()
    write_atomically(folder / _NAMES_FILE, names)
    return True


def _is_valid(folder: Path, names: str, environment: Mapping[str, str]) -> bool:
    """Return True if the folder holds an intact self-signed certificate for `names` that has not expired."""
    names_file = folder / _NAMES_FILE
    if not names_file.is_file() or read_regular(names_file) != names:
        return False
    try:
        _read_pair(folder / CERTIFICATE, folder / CERTIFICATE_KEY)
    except BadInputError:
        return False
    return not _has_expired(folder / CERTIFICATE, environment)


def _has_expired(certificate: Path, environment: Mapping[str, str]) -> bool:
    """Return True if the certificate has expired; False if openssl is not installed any more."""
    argv = ("openssl", "x509", "-noout", "-checkend", "0", "-in", str(certificate))
    try:
        return run(argv, environment=environment, say=lambda _: None, timeout_s=30).returncode != 0
    except EnvironmentUnfitError:
        return False


def _alternative_names(address: str) -> str:
    """Return the subjectAltName: the addresses and names by which clients may reach the endpoint."""
    ips = {"127.0.0.1"}
    if not ip_address(address).is_unspecified:
        ips.add(address)
    names = {"localhost", socket.gethostname()}
    found = [f"IP:{ip}" for ip in sorted(ips)]
    found += [f"DNS:{name}" for name in sorted(names)]
    return ",".join(found)


def _change_owner(folder: Path, gateway: Gateway) -> None:
    """Give root's files to the user in the container. Other users' files belong to that user already."""
    if gateway.user is None or os.getuid() != 0:
        return
    ids = [int(number) for number in gateway.user.split(":")]
    with translating_write_errors(folder):
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, *ids)


def _first(pem: str) -> str:
    """Return the first certificate of a chain, which is the server's own."""
    end = "-----END CERTIFICATE-----"
    return pem[pem.index("-----BEGIN CERTIFICATE-----") : pem.index(end) + len(end)]
