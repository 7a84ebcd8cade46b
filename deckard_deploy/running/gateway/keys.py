"""API keys of this host's clients: created here, stored as hashes, and written to a file that gateways read.

<root>/keys/keys.json   0600  name -> hash and date: KeyRecord
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
from pydantic import BaseModel, ConfigDict, ValidationError

from deckard_deploy.errors import BadInputError, IntegrityError
from deckard_deploy.system.files import private_folder, read_regular, write_atomically

OWN = "deckard"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_OWN_KEY = re.compile(rf"dk-{OWN}-[0-9a-f]{{64}}")
# The lines of an access.conf, as `access` and the keys.sh of a rendered folder write them.
_HASH_LINE = re.compile(r'^ *"dk-([a-z0-9-]+)" "([A-Za-z0-9_-]{22})";$', re.MULTILINE)
_CLOSED_LINE = re.compile(r"^geo \$open \{ default 0; \}$", re.MULTILINE)


class KeyRecord(BaseModel):
    """The stored part of a key: its hash, and the date at which it was created."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    hash: str
    made: str


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

    def add(self, name: str) -> str:
        """Add and return a key, which is not stored; the caller holds the lock.

        Raises BadInputError, IntegrityError.
        """
        self.require_unused_name(name)
        ring = self.ring()
        key = _new_key(name)
        record = KeyRecord(hash=_hash(key), made=datetime.now(UTC).isoformat("T", "seconds"))
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
        found = {name: value for name, value in _HASH_LINE.findall(access) if name != OWN}
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
            added = {name: KeyRecord(hash=found[name], made=made) for name in new}
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

    def access(self) -> str:
        """Return access.conf, as nginx includes it. $access_version shows if a gateway has read this text."""
        ring = self.ring()
        hashes = {OWN: _hash(self.own())}
        for name, record in sorted(ring.keys.items()):
            hashes[name] = record.hash
        known = "".join(f'    "dk-{name}" "{value}";\n' for name, value in hashes.items())
        is_open = int(not ring.closed)
        text = f'map $key_name $key_hash {{\n    default "";\n{known}}}\ngeo $open {{ default {is_open}; }}\n'
        return f'{text}geo $access_version {{ default "{access_version(text)}"; }}\n'

    def _write(self, ring: Keyring) -> None:
        write_atomically(self.folder / "keys.json", ring.model_dump_json(indent=1) + "\n")


def access_version(text: str) -> str:
    """Return twelve hex digits that identify the text of an access.conf without its last line."""
    return hashlib.sha256(text.partition("geo $access_version")[0].encode()).hexdigest()[:12]


def _new_key(name: str) -> str:
    return f"dk-{name}-{secrets.token_hex(32)}"


def _hash(key: str) -> str:
    digest = hashlib.md5(f"Bearer {key}".encode(), usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()  # as secure_link compares it
