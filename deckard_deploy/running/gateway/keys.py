"""Keys of this host's clients: made here, kept as hashes, told to every gateway as a file that nginx reads.

<root>/keys/keys.json   0600  name -> hash and date: Record
<root>/keys/own.key     0600  the key that this tool itself asks with
<root>/keys/lock              held while keys and what gateways read of them are written

nginx compares the MD5 of the whole Authorization line (ngx_http_secure_link_module, the one hash that it has built in).
A key has 256 random bits, so nothing short of trying them all finds one from its hash.
"""

import base64
import contextlib
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


class Record(BaseModel):
    """What is kept of a key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    hash: str
    made: str


class Keyring(BaseModel):
    """keys.json. `closed`: a key was made once, so that from then on each client needs one."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    closed: bool = False
    keys: dict[str, Record] = {}


class Keys:
    """The keys in a state directory."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "keys"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else changes keys, or what gateways read of them. Raises IntegrityError, EnvironmentUnfitError."""
        private_folder(self.folder)
        with FileLock(self.folder / "lock", mode=0o600):
            yield

    def ring(self) -> Keyring:
        """What is on disk. Raises IntegrityError."""
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
        """A new key, which is nowhere else from now on; hold the lock. Raises BadInputError, IntegrityError."""
        self.must_be_new(name)
        ring = self.ring()
        key = _new(name)
        made = datetime.now(UTC).isoformat("T", "seconds")
        self._write(Keyring(closed=True, keys={**ring.keys, name: Record(hash=_hash(key), made=made)}))
        return key

    def revoke(self, name: str) -> None:
        """Forget a key; hold the lock. Raises BadInputError, IntegrityError."""
        self.must_be_known(name)
        ring = self.ring()
        self._write(
            ring.model_copy(update={"keys": {key: ring.keys[key] for key in ring.keys if key != name}})
        )

    def must_be_new(self, name: str) -> None:
        """Raise BadInputError, before anything is written, for what cannot be a key's name or is one."""
        if not _NAME.fullmatch(name) or name == OWN:
            raise BadInputError(
                f"{name[:80]!r} cannot be a key's name",
                hint="a to z, 0 to 9 and -, 32 at most; deckard is this tool's",
            )
        if name in self.ring().keys:
            raise BadInputError(
                f"there is a key named {name} already", hint=f"deckard-deploy keys revoke {name}"
            )

    def must_be_known(self, name: str) -> None:
        """Raise BadInputError for a name that no key has."""
        known = self.ring().keys
        if name not in known:
            raise BadInputError(f"no key named {name[:80]!r}; known: {', '.join(sorted(known)) or 'none'}")

    def own(self) -> str:
        """This tool's own key, made when it is first asked for, and anew when what is there is none."""
        path = self.folder / "own.key"
        with contextlib.suppress(FileNotFoundError):
            if _OWN_KEY.fullmatch(key := read_regular(path).strip()):
                return key
        private_folder(self.folder)
        write_atomically(path, f"{_new(OWN)}\n")
        return read_regular(path).strip()

    def access(self) -> str:
        """access.conf, as nginx includes it; $access_version tells whether a gateway has read this text."""
        ring = self.ring()
        hashes = {OWN: _hash(self.own()), **{name: record.hash for name, record in sorted(ring.keys.items())}}
        known = "".join(f'    "dk-{name}" "{value}";\n' for name, value in hashes.items())
        is_open = int(not ring.closed)
        text = f'map $key_name $key_hash {{\n    default "";\n{known}}}\ngeo $open {{ default {is_open}; }}\n'
        return f'{text}geo $access_version {{ default "{access_version(text)}"; }}\n'

    def _write(self, ring: Keyring) -> None:
        write_atomically(self.folder / "keys.json", ring.model_dump_json(indent=1) + "\n")


def access_version(text: str) -> str:
    """Twelve hex digits that name the text of an access.conf, less its own last line."""
    return hashlib.sha256(text.partition("geo $access_version")[0].encode()).hexdigest()[:12]


def _new(name: str) -> str:
    return f"dk-{name}-{secrets.token_hex(32)}"


def _hash(key: str) -> str:
    digest = hashlib.md5(f"Bearer {key}".encode(), usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()  # as secure_link compares it
