"""The identity of this node and the keys it trusts, on disk in upstream's format.

::

    <directory>/node.key             32 raw bytes: the Ed25519 seed (mode 0600)
    <directory>/node.pub             32 raw bytes: the public key
    <directory>/trusted/<node>.pub   32 raw bytes: the key pinned for a node
    <directory>/backups/<time>/      the pair that a rotation replaced
    <directory>/endorsements         what the former keys say of the next ones (``disk.endorsements``; ours alone)

A key that exists is never replaced by itself: a damaged file is an error that names it. A pin never changes
in silence: ``pin`` refuses a second key; ``unpin`` is the way out, and the word of the pinned key itself (``move``).
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from barrel_p2p.disk.endorsements import EndorsementFile
from barrel_p2p.disk.files import (
    make_backup_directory,
    make_private_directory,
    require_private,
    sync_directory,
    unusable,
    write_atomic,
)
from barrel_p2p.errors import AuthError, ConfigError
from barrel_p2p.proto.endorsement import Chain, endorse
from barrel_p2p.proto.identity import PinVerdict, fingerprint, fingerprint_hex
from barrel_p2p.proto.names import is_node_name, validate_node_name
from barrel_p2p.proto.words import fingerprint_words
from barrel_p2p.term.types import Atom

TrustMode = Literal["tofu", "strict"]

KEY_SIZE = 32
MAX_NAME_ON_DISK = 240  # bytes of a node name that still fit a file name with its suffixes
# In tofu mode every new node adds a pin. A guess, 3 MB of keys; beyond it only pinned nodes get in.
MAX_PINS = 100_000

_log = logging.getLogger("barrel_p2p.keys")


class Identity:
    """An Ed25519 key pair.

    Example: ``Identity.generate().sign(b"text")``
    """

    __slots__ = ("_private", "public_key")

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key: bytes = self._private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Identity:
        """A fresh pair from the system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for the key store alone."""
        return self._private.private_bytes_raw()

    @property
    def fingerprint(self) -> str:
        """The public key's short form for people."""
        return fingerprint(self.public_key)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature of ``data``."""
        return self._private.sign(data)

    def __repr__(self) -> str:
        return f"<Identity {self.fingerprint}>"


class KeyStore:
    """The node's own key pair on disk.

    Example: ``identity = KeyStore(data_dir / "keys").load_or_create()``
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self._key = self.directory / "node.key"
        self._pub = self.directory / "node.pub"
        self._endorsements = EndorsementFile(self.directory)

    def load_or_create(self) -> Identity:
        """Read the pair, or make one if there is none at all.

        Raises:
            ConfigError: the directory can't be used, or what stands there is no whole and private pair.
                Nothing was replaced.
        """
        make_private_directory(self.directory)
        seed, public = self._read(self._key), self._read(self._pub)
        if seed is None and public is None:
            identity = Identity.generate()
            self._write(identity)
            _log.info("made a new identity %s in %s", identity.fingerprint, self.directory)
            return identity
        if seed is None:
            raise ConfigError(
                f"{self._pub} is there, but {self._key} is missing. Restore it from a backup; or delete "
                f"{self._pub} to get a "
                "new identity, which peers that pinned this node refuse until they unpin it"
            )
        require_private(self._key)
        identity = Identity(seed)
        if public is None:  # a crash between the two writes of the first start: the half that counts is there
            self._store(self._pub, identity.public_key)
        elif public != identity.public_key:
            raise ConfigError(
                f"{self._key} and {self._pub} don't belong together (the key's public half is "
                f"{identity.fingerprint}, the "
                f"file holds {fingerprint(public)}). Restore both from one backup, or delete node.pub if "
                "node.key is right"
            )
        return identity

    def chain(self, identity: Identity, *, wall_ms: int | None = None) -> Chain:
        """What the former keys say of ``identity``, for peers that pinned one of them.

        Raises:
            ConfigError: the file can't be read, or is damaged.
        """
        return self._endorsements.read(identity.public_key, wall_ms=_wall_ms() if wall_ms is None else wall_ms)

    def rotate(self, name: Atom | None = None, *, wall_ms: int | None = None) -> Identity:
        """Replace the pair by a new one; the old one goes to ``backups/``. A crash leaves the old pair or the new one.

        Args:
            name: the node whose key it is: the old key then endorses the new one, and nodes of this library that
                pinned the old key accept it. Without a name every peer refuses the new key until it unpins.
            wall_ms: the time of the endorsement, in ms since 1970; default: now.

        Raises:
            ConfigError: as ``load_or_create``; the old pair is still in force.
        """
        old, new = self.load_or_create(), Identity.generate()
        now = _wall_ms() if wall_ms is None else wall_ms
        chain = self.chain(old, wall_ms=now)
        link = None
        if name is not None:
            link = endorse(name, old=old.public_key, new=new.public_key, time=now, sign_old=old.sign, sign_new=new.sign)
        backup = make_backup_directory(self.directory)
        self._store(backup / "node.key", old.seed)
        self._store(backup / "node.pub", old.public_key)
        self._endorsements.append(chain, link)
        try:
            self._pub.unlink()  # a crash from here on leaves a whole node.key, which makes node.pub again
        except OSError as error:
            raise unusable(self._pub, "replace", error) from None
        self._write(new)
        _log.warning("identity changed from %s to %s; old pair in %s", old.fingerprint, new.fingerprint, backup)
        return new

    def _write(self, identity: Identity) -> None:
        self._store(self._key, identity.seed)
        self._store(self._pub, identity.public_key)

    def _store(self, path: Path, data: bytes) -> None:
        try:
            write_atomic(path, data)
        except OSError as error:
            raise unusable(path, "write", error) from None

    def _read(self, path: Path) -> bytes | None:
        try:
            data = _read_key(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unusable(path, "read", error) from None
        if len(data) != KEY_SIZE:
            size = f"{len(data)} bytes" if len(data) < KEY_SIZE else "more than that"
            damage = f"{path} must hold {KEY_SIZE} bytes but has {size}: it was cut short or is no key of ours. "
            if path == self._pub and self._key.exists():  # if that is damaged as well, the next start tells
                raise ConfigError(f"{damage}Delete it: it is made again from {self._key}")
            raise ConfigError(
                f"{damage}Restore it from a backup; or delete {self._key} and {self._pub} to get a new identity, which "
                "peers that pinned this node refuse until they unpin it"
            )
        return data


class TrustStore:
    """The keys pinned for other nodes. ``mode`` says what happens to a node without a pin.

    ``tofu`` (trust on first use) takes the first key that a name presents and pins it; ``strict`` takes only
    keys that were pinned before. Both refuse a key other than the pinned one.

    Example: ``TrustStore(data_dir / "keys", mode="strict").pin("bob@10.0.0.2", key)``

    Raises:
        ConfigError: unknown mode, or the directory can't be used. Files that are no pins are skipped with a
        warning.
    """

    def __init__(self, directory: Path | str, mode: TrustMode = "tofu") -> None:
        if mode not in ("tofu", "strict"):
            raise ConfigError(f"trust mode {mode!r} is unknown: it is 'tofu' (trust on first use) or 'strict'")
        self.mode: TrustMode = mode
        self.directory = Path(directory) / "trusted"
        self._pins: dict[Atom, bytes] = {}
        self._damaged: set[str] = set()
        make_private_directory(self.directory)
        self._load()

    def verdict(self, name: Atom, key: bytes) -> PinVerdict:
        """What to do with ``name`` presenting ``key``; changes nothing."""
        pinned = self._pins.get(name)
        if pinned is not None:
            return PinVerdict.ACCEPT if pinned == key else PinVerdict(PinVerdict.MISMATCH.word, pinned)
        if name in self._damaged:
            return PinVerdict.DAMAGED
        if self.mode == "strict" or len(name) > MAX_NAME_ON_DISK or len(self._pins) >= MAX_PINS:
            return PinVerdict.UNTRUSTED
        return PinVerdict.NEW

    def pin(self, name: str, key: bytes) -> None:
        """Trust ``key`` for the node ``name`` from now on; pinning the same key again does nothing.

        Raises:
            AuthError: another key is pinned (``key_mismatch``); remove it first with ``unpin``.
            ConfigError: no node name, no 32-byte key, or the disk refused. Nothing was pinned.
        """
        atom = validate_node_name(name)
        if not isinstance(key, bytes) or len(key) != KEY_SIZE:
            raise ConfigError(f"a pin is the {KEY_SIZE} raw bytes of an Ed25519 public key, not {key!r:.60}")
        verdict = self.verdict(atom, key)
        if verdict == PinVerdict.ACCEPT:
            return
        if verdict in (PinVerdict.MISMATCH, PinVerdict.DAMAGED):
            held = fingerprint(verdict.pinned) if verdict.pinned is not None else "a key that can't be read any more"
            raise AuthError(
                "key_mismatch",
                f"{atom} has {held} pinned, not {fingerprint(key)}; if its key really changed, unpin it first",
                atom,
            )
        if len(atom) > MAX_NAME_ON_DISK:
            raise ConfigError(f"{atom[:60]}... is too long a name to pin: at most {MAX_NAME_ON_DISK} characters")
        path = self._path(atom)
        try:
            if not self._holds(path, key, atom):
                write_atomic(path, key)
        except OSError as error:
            raise unusable(path, "write", error) from None
        self._pins[atom] = key

    def move(self, name: Atom, chain: Chain) -> None:
        """Pin the key that the pinned one endorses; ``chain`` has been verified (``proto.endorsement.follow``).

        Raises:
            AuthError: the pin is another one meanwhile.
            ConfigError: the disk refused; the old pin is still in force.
        """
        old, new = chain[0].old, chain[-1].new
        pinned = self._pins.get(name)
        if pinned == new:
            return
        if pinned != old:
            raise AuthError("key_mismatch", f"the pin of {name} changed while it showed an endorsement", name)
        path = self._path(name)
        try:
            write_atomic(path, new)
        except OSError as error:
            raise unusable(path, "write", error) from None
        self._pins[name] = new
        _log.warning(
            "%s has a new key: %s, endorsed by the pinned one %s%s; the pin has moved",
            name,
            fingerprint(new),
            fingerprint(old),
            f" over {len(chain)} changes" if len(chain) > 1 else "",
            extra={"peer": name},
        )

    def unpin(self, name: str) -> bool:
        """Forget the key of ``name``; True if one was pinned. In tofu mode the next key it presents is taken.

        Raises:
            ConfigError: no node name, or the disk refused; the pin is still in force.
        """
        atom = validate_node_name(name)
        path = self._path(atom)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise unusable(path, "remove", error) from None
        sync_directory(self.directory)
        known = self._pins.pop(atom, None) is not None or atom in self._damaged
        self._damaged.discard(atom)
        return known

    def pins(self) -> dict[Atom, bytes]:
        """A copy of all pins, sorted by name."""
        return dict(sorted(self._pins.items()))

    @staticmethod
    def _holds(path: Path, key: bytes, name: Atom) -> bool:
        """Whether a file that we did not read when we started holds this key already.

        Raises:
            AuthError: it holds something else, and is left as it is.
        """
        try:
            found = _read_key(path)
        except FileNotFoundError:
            return False
        if found == key:
            return True
        raise AuthError(
            "key_mismatch",
            f"{path} holds another key than {fingerprint(key)}. It came there while this node ran, so its pin counts "
            f"after a restart; or the file system takes {name} for a name that differs in case, and can't keep both.",
            name,
        )

    def _path(self, name: Atom) -> Path:
        return self.directory / f"{name}.pub"

    def _load(self) -> None:
        try:
            paths = sorted(path for path in self.directory.iterdir() if path.suffix == ".pub")
        except OSError as error:
            raise unusable(self.directory, "read", error) from None
        for path in paths:
            name = path.name.removesuffix(".pub")
            if not is_node_name(name):
                _log.warning("skipped %s: a pin is named after its node, as in alice@127.0.0.1.pub", path)
                continue
            try:
                data = _read_key(path)
                problem = None if len(data) == KEY_SIZE else f"it must hold {KEY_SIZE} bytes"
            except OSError as error:
                problem = error.strerror or str(error)
            if problem is None:
                self._pins[Atom(name)] = data
            else:
                # Skipping it would let tofu take any key for this name, which is a pin changed in silence.
                self._damaged.add(name)
                _log.warning(
                    "the pin %s is damaged (%s): %s is refused until it is restored or removed",
                    path,
                    problem,
                    name,
                )


class NodeKeys:
    """``node.keys``: this node's identity and whom it trusts.

    Example: ``node.keys.unpin("bob@10.0.0.2")``
    """

    def __init__(self, identity: Identity, trust: TrustStore) -> None:
        self._identity = identity
        self._trust = trust

    @property
    def public_key(self) -> bytes:
        """Our 32-byte Ed25519 public key."""
        return self._identity.public_key

    @property
    def fingerprint(self) -> str:
        """Our public key's short form, to compare by eye or by phone."""
        return self._identity.fingerprint

    @property
    def words(self) -> str:
        """The first half of the fingerprint as 16 words, to read aloud."""
        return fingerprint_words(self._identity.public_key)

    @property
    def trust_mode(self) -> TrustMode:
        """``tofu`` or ``strict``."""
        return self._trust.mode

    @property
    def pins(self) -> dict[Atom, bytes]:
        """A copy of the pinned keys by node name."""
        return self._trust.pins()

    def pin(self, name: str, key: bytes) -> None:
        """Trust ``key`` (32 bytes) for ``name``; see ``TrustStore.pin``."""
        self._trust.pin(name, key)

    def unpin(self, name: str) -> bool:
        """Forget the key of ``name``; True if one was pinned. Open connections stay."""
        return self._trust.unpin(name)

    def move(self, name: Atom, chain: Chain) -> None:
        """Pin the key that the pinned one endorses; see ``TrustStore.move``."""
        self._trust.move(name, chain)

    def replace(self, identity: Identity) -> None:
        """The node has a new key (its carrier calls this, after ``KeyStore.rotate``)."""
        self._identity = identity

    def __repr__(self) -> str:
        return f"<keys {self.fingerprint}, {self.trust_mode}, {len(self._trust.pins())} pins>"


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _read_key(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(KEY_SIZE + 1)  # one more byte tells a file that is too long


__all__ = [
    "Identity",
    "KeyStore",
    "NodeKeys",
    "PinVerdict",
    "TrustMode",
    "TrustStore",
    "fingerprint",
    "fingerprint_hex",
]
