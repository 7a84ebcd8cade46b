"""The files of a gateway: its access rules, and the user's or a self-signed certificate."""

import os
import subprocess
from pathlib import Path

import pytest

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.planning.plan import LaunchPlan
from deckard_deploy.running.gateway import files
from deckard_deploy.running.gateway.keys import Keys
from tests.support.sample_plans import built_in


def plan(tmp_path: Path, **changes: object) -> LaunchPlan:
    base = built_in("spark")
    assert base.gateway is not None
    gateway = base.gateway.model_copy(
        update={"folder": str(tmp_path / "gateway"), "tls": True, "user": None, **changes}
    )
    return base.model_copy(update={"gateway": gateway, "address": "192.168.1.20"})


def prepare(plan: LaunchPlan, tmp_path: Path) -> bool:
    return files.write_gateway_files(plan, Keys(tmp_path), environment=dict(os.environ), say=lambda _: None)


def openssl(*arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True).stdout


def user_pair(folder: Path, *more: str) -> dict[str, str]:
    pem, key = folder / "own.pem", folder / "own.key"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    openssl(
        "req",
        "-x509",
        *curve,
        "-subj",
        "/CN=x",
        "-keyout",
        str(key),
        "-out",
        str(pem),
        *(more or ("-noenc",)),
    )
    return {"certificate": str(pem), "certificate_key": str(key)}


def test_self_signed_names_address_and_is_kept(tmp_path):
    assert prepare(plan(tmp_path), tmp_path) is True
    first = files.fingerprint(plan(tmp_path))
    shown = openssl("x509", "-in", str(tmp_path / "gateway" / "certificate.pem"), "-noout", "-text")
    assert "IP Address:192.168.1.20" in shown
    assert "DNS:localhost" in shown
    assert prepare(plan(tmp_path), tmp_path) is False
    assert files.fingerprint(plan(tmp_path)) == first


def test_new_address_gets_new_certificate(tmp_path):
    prepare(plan(tmp_path), tmp_path)
    first = files.fingerprint(plan(tmp_path))
    moved = plan(tmp_path).model_copy(update={"address": "192.168.1.21"})
    assert prepare(moved, tmp_path) is True
    assert files.fingerprint(moved) != first


def test_fingerprint_equals_that_of_openssl(tmp_path):
    prepare(plan(tmp_path), tmp_path)
    pem = str(tmp_path / "gateway" / "certificate.pem")
    shown = openssl("x509", "-in", pem, "-noout", "-fingerprint", "-sha256")
    assert files.fingerprint(plan(tmp_path)) == shown.strip().partition("=")[2].replace(":", "").lower()


def test_user_certificate_is_copied_and_renewed(tmp_path):
    own = plan(tmp_path, **user_pair(tmp_path))
    assert prepare(own, tmp_path) is True
    first = files.fingerprint(own)
    assert prepare(own, tmp_path) is False
    user_pair(tmp_path)
    assert prepare(own, tmp_path) is True
    assert files.fingerprint(own) != first
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in (tmp_path / "gateway").iterdir())


def test_self_signed_replaces_user_certificate(tmp_path):
    prepare(plan(tmp_path), tmp_path)
    own = plan(tmp_path, **user_pair(tmp_path))
    prepare(own, tmp_path)
    users = files.fingerprint(own)
    assert prepare(plan(tmp_path), tmp_path) is True
    assert files.fingerprint(plan(tmp_path)) != users


def test_wrong_certificate_keys_are_refused(tmp_path):
    (tmp_path / "other").mkdir()
    pair, other = user_pair(tmp_path), user_pair(tmp_path / "other")
    for wrong in (other["certificate_key"], str(tmp_path / "missing"), "/dev/null"):
        with pytest.raises(BadInputError, match="no certificate and key for each other"):
            prepare(plan(tmp_path, **{**pair, "certificate_key": wrong}), tmp_path)
    locked = user_pair(tmp_path, "-passout", "pass:secret")
    with pytest.raises(BadInputError, match="encrypted"):
        prepare(plan(tmp_path, **locked), tmp_path)
    assert not (tmp_path / "gateway" / "certificate.pem").exists()


def test_damaged_certificate_is_named(tmp_path):
    prepare(plan(tmp_path), tmp_path)
    (tmp_path / "gateway" / "certificate.pem").write_text("x")
    with pytest.raises(IntegrityError, match=r"certificate\.pem is missing or damaged"):
        files.fingerprint(plan(tmp_path))


@pytest.mark.parametrize("name", ["certificate.pem", "certificate.key"])
@pytest.mark.parametrize("text", ["", "x"])
def test_damaged_self_signed_is_replaced(tmp_path, name, text):
    prepare(plan(tmp_path), tmp_path)
    first = files.fingerprint(plan(tmp_path))
    (tmp_path / "gateway" / name).write_text(text)
    assert prepare(plan(tmp_path), tmp_path) is True
    assert files.fingerprint(plan(tmp_path)) != first
    assert prepare(plan(tmp_path), tmp_path) is False


def replace_by_one_until(folder: Path, date: str) -> None:
    """Replace the certificate by one that ends on `date`; `openssl req` creates no expired one."""
    (folder / "ca.conf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\n"
        "commonName=supplied\n"
    )
    (folder / "index").write_text("")
    (folder / "serial").write_text("01\n")
    asked = (
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-noenc",
        "-subj",
        "/CN=x",
    )
    signed = (
        "ca",
        "-batch",
        "-selfsign",
        "-notext",
        "-config",
        "ca.conf",
        "-keyfile",
        "certificate.key",
        "-in",
        "csr",
    )
    for words in (
        (*asked, "-keyout", "certificate.key", "-out", "csr"),
        (*signed, "-out", "certificate.pem", "-startdate", "20200101000000Z", "-enddate", date),
    ):
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)


@pytest.mark.parametrize(("date", "replaced"), [("20490101000000Z", False), ("20250101000000Z", True)])
def test_expired_self_signed_is_replaced(tmp_path, date, replaced):
    prepare(plan(tmp_path), tmp_path)
    replace_by_one_until(tmp_path / "gateway", date)
    assert prepare(plan(tmp_path), tmp_path) is replaced


def test_valid_certificate_is_kept_without_openssl(tmp_path, monkeypatch):
    prepare(plan(tmp_path), tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert prepare(plan(tmp_path), tmp_path) is False


def test_no_certificate_without_tls(tmp_path):
    plain = plan(tmp_path, tls=False)
    prepare(plain, tmp_path)
    assert files.fingerprint(plain) is None
    assert [file.name for file in (tmp_path / "gateway").iterdir()] == ["access.conf"]


def test_renew_access_writes_current_keys(tmp_path):
    keys, folder = Keys(tmp_path), tmp_path / "gateway"
    files.renew_access(folder, keys)
    assert not folder.exists()  # there was no gateway
    prepare(plan(tmp_path), tmp_path)
    if os.geteuid() == 0:
        os.chown(folder, 1234, 1234)
    with keys.lock():
        keys.add("alice")
    files.renew_access(folder, keys)
    found = folder / "access.conf"
    assert found.read_text() == keys.access()
    assert (found.stat().st_uid, found.stat().st_mode & 0o777) == (folder.stat().st_uid, 0o600)


@pytest.mark.skipif(os.getuid() != 0, reason="gives files to another user")
@pytest.mark.parametrize(("folder_owner", "expected"), [(101, 101), (0, 33)])
def test_renewed_access_file_keeps_mode_and_owner(tmp_path: Path, folder_owner: int, expected: int) -> None:
    """nginx reads it as another user, whoever has started that nginx."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    access = folder / "access.conf"
    access.write_text("of before")
    access.chmod(0o640)
    os.chown(access, 33, 33)
    os.chown(folder, folder_owner, folder_owner)
    files.renew_access(folder, Keys(tmp_path))
    found = access.stat()
    assert access.read_text() == Keys(tmp_path).access()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o640, expected, expected)
