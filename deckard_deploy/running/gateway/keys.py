"""API keys of this host's clients: created here, stored as hashes, and written to a file that gateways read.

<root>/keys/keys.json   0600  name -> hash, date, end and limits: KeyRecord
<root>/keys/own.key     0600  the key that this tool itself uses
<root>/keys/lock              held while the keys and the gateways' files are written

nginx compares the MD5 of the whole Authorization line (ngx_http_secure_link_module, its only built-in hash).
A key has 256 random bits, so a search from its hash would have to try them all.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.system.files import private_folder, read_regular, write_atomically

OWN = "deckard"
_LAST_DATE = 253_402_300_799  # the end of the year 9999, in seconds since 1970: the last that datetime has
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_OWN_KEY = re.compile(rf"dk-{OWN}-[0-9a-f]{{64}}")
# The lines of an access.conf, as `access` and the keys.sh of a rendered folder write them.
_HASH_LINE = re.compile(r'^ *"dk-([a-z0-9-]+)" "([A-Za-z0-9_-]{22})(?:,([0-9]{1,12}))?";$', re.MULTILINE)
_CLOSED_LINE = re.compile(r"^geo \$open \{ default 0; \}$", re.MULTILINE)


class KeyTerms(BaseModel):
    """The limits of a key; None: none.

    requests, tokens: a minute, prompts and answers together. concurrent: requests at the same time. ends_at: in seconds
    since 1970; the gateway refuses the key from then on.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    requests: int | None = None
    tokens: int | None = None
    concurrent: int | None = None
    ends_at: int | None = Field(default=None, le=_LAST_DATE)

    @property
    def header(self) -> str:
        """The limits as the filter of requests reads them (plugins/request-filter)."""
        named = {"requests": self.requests, "tokens": self.tokens, "concurrent": self.concurrent}
        return " ".join(f"{name}={number}" for name, number in named.items() if number is not None)

    def __str__(self) -> str:
        """Return the limits in words."""
        words = []
        if self.requests is not None:
            words.append(f"{self.requests} requests/min")
        if self.tokens is not None:
            words.append(f"{self.tokens} tokens/min")
        if self.concurrent is not None:
            words.append(f"{self.concurrent} concurrent")
        if self.ends_at is not None:
            words.append(f"until {datetime.fromtimestamp(self.ends_at, UTC).isoformat('T', 'seconds')}")
        return ", ".join(words) or "no limits"


UNLIMITED = KeyTerms()


class KeyRecord(BaseModel):
    """The stored part of a key: its hash, the date at which it was created, and its limits."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    hash: str
    made: str
    terms: KeyTerms = UNLIMITED


class Keyring(BaseModel):
    """The content of keys.json. closed: a key was once created, so that each client needs one."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    closed: bool = False
    keys: dict[str, KeyRecord] = {}


class Keys:
    """The keys in a state directory."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "keys"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of keys and gateways' files. Raises IntegrityError, EnvironmentUnfitError."""
        private_folder(self.folder)
        with FileLock(self.folder / "lock", mode=0o600):
            yield

    def ring(self) -> Keyring:
        """Return the content of keys.json. Raises IntegrityError."""
        path = self.folder / "keys.json"
        try:
            return Keyring.model_validate_json(read_regular(path))
        except FileNotFoundError:
            return Keyring()
        except ValidationError as error:
            raise IntegrityError(
                f"{path} is damaged", hint=f"make new keys: rm {path}; deckard-deploy keys add NAME"
            ) from error

    def add(self, name: str, terms: KeyTerms = UNLIMITED) -> str:
        """Add and return a key, which is not stored; the caller holds the lock.

        Raises BadInputError, IntegrityError.
        """
        self.require_unused_name(name)
        return self._make(name, terms)

    def rotate(self, name: str) -> str:
        """Replace a key by a new one with the same limits, and return it; the caller holds the lock.

        Raises BadInputError, IntegrityError.
        """
        self.require_known_name(name)
        return self._make(name, self.ring().keys[name].terms)

    def limit(self, name: str, terms: KeyTerms) -> None:
        """Give a key these limits in place of the former; the caller holds the lock. Raises BadInputError."""
        self.require_known_name(name)
        ring = self.ring()
        changed = ring.keys[name].model_copy(update={"terms": terms})
        self._write(ring.model_copy(update={"keys": {**ring.keys, name: changed}}))

    def open(self) -> None:
        """Let programs of this machine in without a key again; the caller holds the lock.

        Raises BadInputError while a key is left.
        """
        ring = self.ring()
        if ring.keys:
            raise BadInputError(
                f"there are keys: {', '.join(sorted(ring.keys))}",
                hint="revoke each of them first: deckard-deploy keys revoke NAME",
            )
        self._write(Keyring())

    def _make(self, name: str, terms: KeyTerms) -> str:
        ring = self.ring()
        key = _new_key(name)
        made = datetime.now(UTC).isoformat("T", "seconds")
        record = KeyRecord(hash=_hash(key), made=made, terms=terms)
        self._write(Keyring(closed=True, keys={**ring.keys, name: record}))
        return key

    def revoke(self, name: str) -> None:
        """Remove a key; the caller holds the lock. Raises BadInputError, IntegrityError."""
        self.require_known_name(name)
        ring = self.ring()
        remaining = {key: record for key, record in ring.keys.items() if key != name}
        self._write(ring.model_copy(update={"keys": remaining}))

    def take_over(self, access: str) -> list[str]:
        """Add the keys of an access.conf that keys.sh wrote. Return the names of the new ones.

        The caller holds the lock. Raises BadInputError for a name that has another key here.
        """
        ring = self.ring()
        lines = {name: (value, end) for name, value, end in _HASH_LINE.findall(access) if name != OWN}
        found = {name: value for name, (value, _) in lines.items()}
        for name, value in found.items():
            if name in ring.keys and ring.keys[name].hash != value:
                raise BadInputError(
                    f"there is another key named {name} already",
                    hint=f"deckard-deploy keys revoke {name}, here or by keys.sh in the folder",
                )
        new = sorted(found.keys() - ring.keys.keys())
        closed = ring.closed or _CLOSED_LINE.search(access) is not None
        if new or closed != ring.closed:
            made = datetime.now(UTC).isoformat("T", "seconds")
            ends = {name: KeyTerms(ends_at=int(end) if end else None) for name, (_, end) in lines.items()}
            added = {name: KeyRecord(hash=found[name], made=made, terms=ends[name]) for name in new}
            self._write(Keyring(closed=closed, keys={**ring.keys, **added}))
        return new

    def require_unused_name(self, name: str) -> None:
        """Raise BadInputError for an invalid or used name of a key, before anything is written."""
        if not _NAME.fullmatch(name) or name == OWN:
            raise BadInputError(
                f"{name[:80]!r} cannot be a key's name",
                hint="a to z, 0 to 9 and -, 32 at most; deckard is this tool's",
            )
        if name in self.ring().keys:
            raise BadInputError(
                f"there is a key named {name} already", hint=f"deckard-deploy keys revoke {name}"
            )

    def require_known_name(self, name: str) -> None:
        """Raise BadInputError if no key has the name."""
        known = self.ring().keys
        if name not in known:
            raise BadInputError(f"no key named {name[:80]!r}; known: {', '.join(sorted(known)) or 'none'}")

    def own(self) -> str:
        """Return the tool's own key. It is created at the first use, and replaced if the file is invalid."""
        path = self.folder / "own.key"
        try:
            key = read_regular(path).strip()
        except FileNotFoundError:
            key = ""
        if _OWN_KEY.fullmatch(key):
            return key
        private_folder(self.folder)
        write_atomically(path, f"{_new_key(OWN)}\n")
        return read_regular(path).strip()  # another process may have replaced it

    def access(self, *, own_only: bool = False) -> str:
        """Return access.conf, as nginx includes it. $access_version shows if a gateway has read this text.

        own_only: of a replica's gateway, which only this tool may use.
        """
        ring = Keyring(closed=True) if own_only else self.ring()
        hashes = {OWN: _hash(self.own())}
        headers = {}
        for name, record in sorted(ring.keys.items()):
            # secure_link compares the number behind the comma with the time (ngx_http_secure_link_module).
            end = f",{record.terms.ends_at}" if record.terms.ends_at is not None else ""
            hashes[name] = f"{record.hash}{end}"
            if record.terms.header:
                headers[name] = record.terms.header
        text = _map_of_names("key_hash", hashes)
        if headers:
            text += _map_of_names("key_limits", headers)
        text += f"geo $open {{ default {int(not ring.closed)}; }}\n"
        return f'{text}geo $access_version {{ default "{access_version(text)}"; }}\n'

    def _write(self, ring: Keyring) -> None:
        # Without what is absent: an earlier version reads the keys that have no limits.
        write_atomically(
            self.folder / "keys.json", ring.model_dump_json(indent=1, exclude_defaults=True) + "\n"
        )


def _map_of_names(variable: str, values: dict[str, str]) -> str:
    """Return a map of nginx from the names of keys."""
    lines = "".join(f'    "dk-{name}" "{value}";\n' for name, value in values.items())
    return f'map $key_name ${variable} {{\n    default "";\n{lines}}}\n'


def access_version(text: str) -> str:
    """Return twelve hex digits that identify the text of an access.conf without its last line."""
    return hashlib.sha256(text.partition("geo $access_version")[0].encode()).hexdigest()[:12]


def _new_key(name: str) -> str:
    return f"dk-{name}-{secrets.token_hex(32)}"


def _hash(key: str) -> str:
    digest = hashlib.md5(f"Bearer {key}".encode(), usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()  # as secure_link compares it
