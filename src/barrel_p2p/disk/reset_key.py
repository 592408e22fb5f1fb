"""The secret by which a restarted node tells its peers that the connections from before are gone.

``<quic>/reset.key``: 64 bytes, mode 0600. It must outlive a change of the node's key: else the peers of a
node that is changed and then restarted would notice only after ``net_ticktime_ms`` of silence. The first one follows
from the Ed25519 key, as it did before there was a file, so that nodes which run meanwhile are not surprised.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from barrel_p2p.disk.files import make_private_directory, require_private, unusable, write_atomic
from barrel_p2p.errors import ConfigError

SIZE = 64


def load_or_create(directory: Path, seed: bytes) -> bytes:
    """Read the secret, or make it from ``seed``, the node's present Ed25519 seed.

    Raises:
        ConfigError: the file can't be read or written, others may read it, or it has another size.
    """
    make_private_directory(directory)
    path = directory / "reset.key"
    try:
        with path.open("rb") as file:
            secret = file.read(SIZE + 1)
    except FileNotFoundError:
        secret = hmac.digest(seed, b"barrel_p2p stateless reset", hashlib.sha512)
        try:
            write_atomic(path, secret)
        except OSError as error:
            raise unusable(path, "write", error) from None
        return secret
    except OSError as error:
        raise unusable(path, "read", error) from None
    require_private(path)
    if len(secret) != SIZE:
        raise ConfigError(
            f"{path} must hold {SIZE} bytes: it was cut short or is no file of ours. Delete it: a new one is made, and "
            "peers notice this restart a little later than usual"
        )
    return secret


__all__ = ["load_or_create"]
