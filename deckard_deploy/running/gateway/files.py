"""The folder that a gateway reads: who may come in, and its certificate.

<deployment>/gateway/        0700; in docker it is mounted read-only, and belongs to the user in the container
  access.conf                0600  keys.access
  certificate.pem, .key      0600  the user's, copied, or self-signed
"""

import contextlib
import os
import shutil
import socket
import ssl
from collections.abc import Mapping
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from deckard_deploy.errors import BadInputError, EnvironmentUnfitError, IntegrityError
from deckard_deploy.planning.plan import Gateway, LaunchPlan
from deckard_deploy.running.gateway.keys import Keys
from deckard_deploy.system.commands import Say, last_output_line, run
from deckard_deploy.system.files import private_folder, read_regular, write_atomically, writing

ACCESS, CERTIFICATE, CERTIFICATE_KEY = "access.conf", "certificate.pem", "certificate.key"
_MADE_FOR = "certificate.names"  # of a self-signed one alone
# The most that some TLS clients accept (Apple, "Requirements for trusted certificates", HT210176)
_DAYS = 825


def prepare(plan: LaunchPlan, keys: Keys, *, environment: Mapping[str, str], say: Say) -> bool:
    """Have everything in the folder that the plan's gateway reads; whether anything of it is new.

    Raises BadInputError (a certificate that is none), IntegrityError, EnvironmentUnfitError.
    """
    gateway = plan.gateway
    if gateway is None:
        return False
    folder = private_folder(Path(gateway.folder))
    with keys.held():
        new = _put(folder / ACCESS, keys.access())
    if gateway.tls:
        new = _have_certificate(plan, gateway, folder, environment=environment, say=say) or new
    _hand_over(folder, gateway)
    return new


def renew_access(folder: Path, keys: Keys) -> None:
    """Write the keys of now where a gateway reads them, or will when it starts; nothing where there never was one."""
    path = folder / ACCESS
    with keys.held():
        if path.is_file() and _put(path, keys.access()) and os.getuid() == 0:
            with writing(path):
                os.chown(path, folder.stat().st_uid, folder.stat().st_gid)


def refuse_bad_pair(plan: LaunchPlan) -> None:
    """Raise BadInputError when the user's certificate and key are not readable, or not of each other."""
    gateway = plan.gateway
    if gateway and gateway.tls and gateway.certificate and gateway.certificate_key:
        _own_pair(Path(gateway.certificate), Path(gateway.certificate_key))


def fingerprint(plan: LaunchPlan) -> str | None:
    """SHA-256 of the certificate that the plan's gateway shows, in hex; None without TLS. Raises IntegrityError."""
    if plan.gateway is None or not plan.gateway.tls:
        return None
    path = Path(plan.gateway.folder) / CERTIFICATE
    try:
        return sha256(ssl.PEM_cert_to_DER_cert(_first(read_regular(path)))).hexdigest()
    except (FileNotFoundError, ValueError) as error:
        raise IntegrityError(f"{path} is missing or damaged", hint="deckard-deploy up") from error


def _put(path: Path, text: str) -> bool:
    if path.is_file() and read_regular(path) == text:
        return False
    write_atomically(path, text)
    return True


def _have_certificate(
    plan: LaunchPlan, gateway: Gateway, folder: Path, *, environment: Mapping[str, str], say: Say
) -> bool:
    if gateway.certificate is None or gateway.certificate_key is None:
        return _self_signed(plan, folder, environment=environment, say=say)
    pair = _own_pair(Path(gateway.certificate), Path(gateway.certificate_key))
    (folder / _MADE_FOR).unlink(missing_ok=True)  # from here on the one that is there is not ours
    news = [
        _put(folder / name, text) for name, text in zip((CERTIFICATE, CERTIFICATE_KEY), pair, strict=True)
    ]
    return any(news)


def _own_pair(certificate: Path, key: Path) -> tuple[str, str]:
    """Both files' text. Raises BadInputError when they are not readable, or not of each other."""
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


def _self_signed(plan: LaunchPlan, folder: Path, *, environment: Mapping[str, str], say: Say) -> bool:
    """One that is there is kept, because clients may trust it, unless it is damaged, over, or for other names."""
    names = _names(plan.address)
    made_for = folder / _MADE_FOR
    files = (folder / CERTIFICATE, folder / CERTIFICATE_KEY)
    if made_for.is_file() and read_regular(made_for) == names:
        with contextlib.suppress(BadInputError):
            _own_pair(*files)
            if not _is_over(files[0], environment):
                return False
    ends = ("-keyout", str(folder / "new.key"), "-out", str(folder / "new.pem"))
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
    subject = ("-days", str(_DAYS), "-subj", f"/CN={plan.deployment}", "-addext", f"subjectAltName={names}")
    done = run(
        ("openssl", "req", "-x509", *key, *subject, *ends),
        environment=environment,
        say=say,
        timeout_s=30,
        folder=folder,
    )
    if done.returncode:
        raise EnvironmentUnfitError(f"openssl: {last_output_line(done.stderr)}", hint="openssl version")
    for file, made in zip(files, ("new.pem", "new.key"), strict=True):
        write_atomically(file, read_regular(folder / made))
        (folder / made).unlink()
    write_atomically(made_for, names)
    return True


def _is_over(certificate: Path, environment: Mapping[str, str]) -> bool:
    """Whether it has ended; where openssl has gone since it was made, it is taken to last."""
    asked = ("openssl", "x509", "-noout", "-checkend", "0", "-in", str(certificate))
    with contextlib.suppress(EnvironmentUnfitError):
        return run(asked, environment=environment, say=lambda _: None, timeout_s=30).returncode != 0
    return False


def _names(address: str) -> str:
    """subjectAltName: what clients may call the endpoint."""
    ips = {"127.0.0.1", *([] if ip_address(address).is_unspecified else [address])}
    names = {"localhost", socket.gethostname()}
    return ",".join([*(f"IP:{ip}" for ip in sorted(ips)), *(f"DNS:{name}" for name in sorted(names))])


def _hand_over(folder: Path, gateway: Gateway) -> None:
    """Root's files go to the user in the container; anybody else's are that user's already."""
    if gateway.user is None or os.getuid() != 0:
        return
    with writing(folder):
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, *(int(number) for number in gateway.user.split(":")))


def _first(pem: str) -> str:
    """The first certificate of a chain, which is the server's own."""
    end = "-----END CERTIFICATE-----"
    return pem[pem.index("-----BEGIN CERTIFICATE-----") : pem.index(end) + len(end)]
