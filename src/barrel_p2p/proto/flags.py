"""Distribution flags: what each node of a pair can do, exchanged in the dist handshake as 64 bits.

Names are OTP's without ``DFLAG_`` (erl_dist_protocol, "Distribution Flags"; values from kernel's
``dist.hrl``). The documentation gives MANDATORY_25_DIGEST as ``1 bsl 36``; the code, which counts, has
0x4000000 and uses bit 36 for LOCAL_EXT.
"""

from __future__ import annotations

from enum import KEEP, IntFlag


class Flags(IntFlag, boundary=KEEP):
    """A set of distribution flags; unknown bits of newer peers are kept."""

    PUBLISHED = 0x1
    ATOM_CACHE = 0x2
    EXTENDED_REFERENCES = 0x4
    DIST_MONITOR = 0x8
    FUN_TAGS = 0x10
    DIST_MONITOR_NAME = 0x20
    HIDDEN_ATOM_CACHE = 0x40
    NEW_FUN_TAGS = 0x80
    EXTENDED_PIDS_PORTS = 0x100
    EXPORT_PTR_TAG = 0x200
    BIT_BINARIES = 0x400
    NEW_FLOATS = 0x800
    UNICODE_IO = 0x1000
    DIST_HDR_ATOM_CACHE = 0x2000
    SMALL_ATOM_TAGS = 0x4000
    UTF8_ATOMS = 0x10000
    MAP_TAG = 0x20000
    BIG_CREATION = 0x40000
    SEND_SENDER = 0x80000
    BIG_SEQTRACE_LABELS = 0x100000
    EXIT_PAYLOAD = 0x400000
    FRAGMENTS = 0x800000
    HANDSHAKE_23 = 0x1000000
    UNLINK_ID = 0x2000000
    MANDATORY_25_DIGEST = 0x4000000
    SPAWN = 1 << 32
    NAME_ME = 1 << 33
    V4_NC = 1 << 34
    ALIAS = 1 << 35
    LOCAL_EXT = 1 << 36
    ALTACT_SIG = 1 << 37
    # Ours, not OTP's: "I am a node of this library". OTP gives out bits from 32 upwards and drops from the
    # negotiation what it does not know; below bit 59 the set stays a small integer there.
    PYTHON = 1 << 58


# What OTP 25 demands of every peer; the single flag MANDATORY_25_DIGEST may stand for all of them.
MANDATORY_25 = (
    Flags.EXTENDED_REFERENCES
    | Flags.FUN_TAGS
    | Flags.EXTENDED_PIDS_PORTS
    | Flags.NEW_FUN_TAGS
    | Flags.EXPORT_PTR_TAG
    | Flags.BIT_BINARIES
    | Flags.NEW_FLOATS
    | Flags.UTF8_ATOMS
    | Flags.MAP_TAG
    | Flags.BIG_CREATION
    | Flags.HANDSHAKE_23
)

# What OTP 26 to 28 demand, and we do: every node from OTP 25 on has them, and our links (UNLINK_ID) and pids
# (V4_NC) know no older form.
MANDATORY = MANDATORY_25 | Flags.UNLINK_ID | Flags.V4_NC

# OTP 27's own set without the atom cache, which only the TCP carrier adds: 0xD07DF5FBD, what an upstream node
# sends.
OTP_27 = (
    MANDATORY
    | Flags.MANDATORY_25_DIGEST
    | Flags.PUBLISHED
    | Flags.DIST_MONITOR
    | Flags.DIST_MONITOR_NAME
    | Flags.UNICODE_IO
    | Flags.SMALL_ATOM_TAGS
    | Flags.SEND_SENDER
    | Flags.BIG_SEQTRACE_LABELS
    | Flags.EXIT_PAYLOAD
    | Flags.FRAGMENTS
    | Flags.SPAWN
    | Flags.ALIAS
)

# What we offer.
DEFAULT = OTP_27 | Flags.PYTHON

# A hidden node: `global` leaves it alone and it is absent from nodes() of the others.
HIDDEN = DEFAULT & ~Flags.PUBLISHED


def expand(flags: int) -> Flags:
    """The flags with MANDATORY_25_DIGEST written out as the eleven flags it stands for."""
    known = Flags(flags)
    return known | MANDATORY_25 if known & Flags.MANDATORY_25_DIGEST else known


def missing(offered: int, required: Flags = MANDATORY) -> Flags:
    """The required flags that a peer does not offer."""
    return required & ~expand(offered)


def explain(flags: int) -> list[str]:
    """The names of the flags set, lowest bit first; bits without a name as hexadecimal."""
    return [_BY_BIT.get(1 << i) or f"{1 << i:#x}" for i in range(64) if flags >> i & 1]


_BY_BIT = {flag.value: flag.name for flag in Flags}

__all__ = [
    "DEFAULT",
    "HIDDEN",
    "MANDATORY",
    "MANDATORY_25",
    "OTP_27",
    "Flags",
    "expand",
    "explain",
    "missing",
]
