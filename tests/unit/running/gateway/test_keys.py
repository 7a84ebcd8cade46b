"""Keys are shown once and stored as hashes."""

import base64
import hashlib
import json
import re
import stat

import pytest

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.running.gateway.keys import Keys, KeyTerms, _hash, access_version


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path)


def add_key(keys: Keys, name: str) -> str:
    with keys.lock():
        return keys.add(name)


def test_key_has_name_and_256_random_bits(keys):
    first, second = add_key(keys, "alice"), add_key(keys, "bob-2")
    assert re.fullmatch(r"dk-alice-[0-9a-f]{64}", first)
    assert re.fullmatch(r"dk-bob-2-[0-9a-f]{64}", second)
    assert first[-64:] != second[-64:]


def test_only_hashes_are_stored_privately(keys, tmp_path):
    key = add_key(keys, "alice")
    keys.own()
    keys.access()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"keys.json", "own.key", "lock"}
    for path in files:
        assert key[-64:] not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_access_holds_hash_of_authorization_line(keys):
    key = add_key(keys, "alice")
    digest = (
        base64.urlsafe_b64encode(hashlib.md5(f"Bearer {key}".encode(), usedforsecurity=False).digest())
        .decode()
        .rstrip("=")
    )
    assert f'    "dk-alice" "{digest}";\n' in keys.access()


def test_revoke_keeps_the_gateway_closed(keys):
    assert "geo $open { default 1; }" in keys.access()
    add_key(keys, "alice")
    with keys.lock():
        keys.revoke("alice")
    text = keys.access()
    assert "alice" not in text
    assert "geo $open { default 0; }" in text
    assert "dk-deckard" in text


def test_own_key_is_stable(keys):
    assert keys.own() == keys.own()
    assert keys.own().startswith("dk-deckard-")


@pytest.mark.parametrize("damage", ["", "dk-deckard-", "dk-deckard-é\n", "\0" * 76])
def test_invalid_own_key_is_replaced(keys, damage):
    before = keys.own()
    (keys.folder / "own.key").write_text(damage)
    assert len(keys.own()) == len(before)
    assert keys.own() == keys.own() != before


def test_access_version_follows_the_text(keys):
    before = keys.access()
    assert f'"{access_version(before)}"' in before
    assert keys.access() == before
    add_key(keys, "alice")
    assert access_version(keys.access()) != access_version(before)


@pytest.mark.parametrize(
    "name", ["", "deckard", "A", "a_b", "a b", "-a", "a" * 33, "a\n", 'x";', "é", "../x", "$a"]
)
def test_invalid_name_is_refused_before_writing(keys, name):
    with pytest.raises(BadInputError, match="cannot be a key's name"):
        add_key(keys, name)
    assert not (keys.folder / "keys.json").exists()


def test_used_and_unknown_names_are_refused(keys):
    add_key(keys, "alice")
    with pytest.raises(BadInputError, match="already"):
        add_key(keys, "alice")
    with pytest.raises(BadInputError, match="no key named 'bob'; known: alice"), keys.lock():
        keys.revoke("bob")


def test_damaged_keys_file_is_named(keys):
    add_key(keys, "alice")
    (keys.folder / "keys.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"keys\.json is damaged"):
        keys.ring()


def test_keys_of_access_file_are_taken_over(tmp_path):
    theirs, ours = Keys(tmp_path / "theirs"), Keys(tmp_path / "ours")
    add_key(theirs, "dora")
    add_key(ours, "alice")
    with ours.lock():
        assert ours.take_over(theirs.access()) == ["dora"]
        assert ours.take_over(theirs.access()) == []
    assert set(ours.ring().keys) == {"alice", "dora"}  # not the other tool's own key
    assert ours.ring().keys["dora"].hash == theirs.ring().keys["dora"].hash
    assert ours.own() != theirs.own()


def test_open_access_file_closes_nothing(tmp_path):
    theirs, ours = Keys(tmp_path / "theirs"), Keys(tmp_path / "ours")
    assert ours.take_over(theirs.access()) == []
    assert ours.ring().closed is False
    with theirs.lock():
        theirs.add("dora")
        theirs.revoke("dora")
    with ours.lock():
        ours.take_over(theirs.access())
    assert ours.ring().closed is True


def test_other_key_of_same_name_is_refused(tmp_path):
    theirs, ours = Keys(tmp_path / "theirs"), Keys(tmp_path / "ours")
    add_key(theirs, "dora")
    add_key(ours, "dora")
    before = ours.ring()
    with pytest.raises(BadInputError, match="another key named dora"):
        ours.take_over(theirs.access())
    assert ours.ring() == before


def test_limits_and_end_are_in_file_of_gateway(keys):
    with keys.lock():
        keys.add("alice", KeyTerms(requests=60, concurrent=2, ends_at=2_000_000_000))
        keys.add("bob", KeyTerms(tokens=1000))
    text = keys.access()
    assert re.search(r'^    "dk-alice" "[A-Za-z0-9_-]{22},2000000000";$', text, re.MULTILINE)
    assert '    "dk-alice" "requests=60 concurrent=2";\n    "dk-bob" "tokens=1000";' in text


def test_file_without_limits_is_as_before(keys):
    add_key(keys, "alice")
    assert "key_limits" not in keys.access()
    assert set(json.loads((keys.folder / "keys.json").read_text())["keys"]["alice"]) == {"hash", "made"}


def test_changed_limits_are_another_version_of_access(keys):
    add_key(keys, "alice")
    before = keys.access()
    with keys.lock():
        keys.limit("alice", KeyTerms(requests=1))
    assert access_version(keys.access()) != access_version(before)
    with keys.lock():
        keys.limit("alice", KeyTerms())
    assert keys.access() == before


def test_rotated_key_keeps_its_limits(keys):
    with keys.lock():
        old = keys.add("alice", KeyTerms(requests=60))
        new = keys.rotate("alice")
    assert old != new
    assert _hash(old) not in keys.access()
    assert _hash(new) in keys.access()
    assert keys.ring().keys["alice"].terms == KeyTerms(requests=60)
    with keys.lock(), pytest.raises(BadInputError, match="bob"):
        keys.rotate("bob")


def test_host_opens_only_without_keys(keys):
    add_key(keys, "alice")
    with keys.lock():
        with pytest.raises(BadInputError, match="alice"):
            keys.open()
        keys.revoke("alice")
        assert "geo $open { default 0; }" in keys.access()
        keys.open()
    assert "geo $open { default 1; }" in keys.access()


def test_end_of_a_key_is_taken_over(keys, tmp_path):
    with keys.lock():
        keys.add("alice", KeyTerms(ends_at=2_000_000_000))
    other = Keys(tmp_path / "other")
    with other.lock():
        assert other.take_over(keys.access()) == ["alice"]
    assert other.ring().keys["alice"].terms == KeyTerms(ends_at=2_000_000_000)


def test_terms_are_words():
    assert str(KeyTerms()) == "no limits"
    assert str(KeyTerms(requests=1, tokens=2, concurrent=3, ends_at=0)) == (
        "1 requests/min, 2 tokens/min, 3 concurrent, until 1970-01-01T00:00:00+00:00"
    )
