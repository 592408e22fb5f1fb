"""What the former keys of this node say of the next ones, on disk.

``<keys>/endorsements``: links of 200 bytes (``proto.endorsement``), oldest first, mode 0600; upstream has no such file.
A rotation writes it before the new key. So there is never a key in force without its endorsement; after a crash in
between the last link leads to a key that was never used, and is left out.
"""

from __future__ import annotations

from pathlib import Path

from barrel_p2p.disk.files import unusable, write_atomic
from barrel_p2p.errors import ConfigError
from barrel_p2p.proto.endorsement import (
    LIFETIME_MS,
    LINK_SIZE,
    MAX_LINKS,
    Chain,
    Endorsement,
    decode_chain,
    encode_chain,
)


class EndorsementFile:
    """The chain of one node; ``directory`` is that of its keys."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "endorsements"

    def read(self, own_key: bytes, *, wall_ms: int) -> Chain:
        """The links that lead to ``own_key`` and have not expired, oldest first.

        Raises:
            ConfigError: The file can't be read, or is no such file.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_LINKS * LINK_SIZE + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise unusable(self.path, "read", error) from None
        try:
            return _leading_to(own_key, decode_chain(data), wall_ms)
        except ValueError as error:
            raise ConfigError(
                f"{self.path} is damaged: {error}. Restore it from a backup; or delete it, then nodes that were away "
                "while this node changed its key refuse it until they unpin it"
            ) from None

    def append(self, chain: Chain, link: Endorsement | None) -> None:
        """Write the chain with one more link; without one it ends here, and there is nothing to say any more.

        Raises:
            ConfigError: The disk refused; the old chain stands there.
        """
        try:
            if link is None:
                self.path.unlink(missing_ok=True)
            else:
                write_atomic(self.path, encode_chain((*chain, link)[-MAX_LINKS:]))
        except OSError as error:
            raise unusable(self.path, "write", error) from None


def _leading_to(key: bytes, chain: Chain, wall_ms: int) -> Chain:
    way: list[Endorsement] = []
    for link in reversed(chain):
        if link.new != key:
            if way:
                break
            continue  # of a rotation that a crash cut short
        if wall_ms - link.time > LIFETIME_MS:
            break
        way.append(link)
        key = link.old
    return tuple(reversed(way))


__all__ = ["EndorsementFile"]
