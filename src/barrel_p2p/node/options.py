"""What a node can be told, each option with its default and where the default comes from."""

from __future__ import annotations

import difflib
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from barrel_p2p.errors import ConfigError
from barrel_p2p.net.discovery import Address, Backend
from barrel_p2p.proto.hyparview_config import HyParViewConfig
from barrel_p2p.term.codec import Codec

DEFAULT_COOKIE = "barrel_p2p"  # upstream's default
_MEMBERSHIP = HyParViewConfig()  # has the defaults of the overlay's options


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach a peer: what the hook ``on_address`` may return.

    Attributes:
        address: Where to send: the peer's own ``(host, port)``, or that of a relay which passes on what it gets.
        socket: A UDP socket to use for this connection alone, bound, over QUIC. The node uses a duplicate of it, so
            closing this one is the caller's affair, at any time. None: a new socket.
    """

    address: Address
    socket: socket.socket | None = None


MIN_MESSAGE: Final = 65_536  # a guess: many times what the overlay says at once
MIN_WAIT_MS: Final = 100  # for limits in which a peer has to answer; a guess: a loop may be blocked for tens of ms
_WAITS: Final = (
    "auth_timestamp_window_ms",
    "auth_handshake_timeout_ms",
    "setup_timeout_ms",
    "net_ticktime_ms",
    "lease_ms",
)

OnAddress = Callable[[str, Address], Address | Way | Awaitable[Address | Way]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of ``Node``; every field is a keyword argument of it. Units are in the names, sizes are bytes."""

    proto_dist: Literal["barrel_p2p", "inet_tcp"] = "barrel_p2p"
    """The carrier. ``barrel_p2p``: Erlang distribution over QUIC with Ed25519 authentication. ``inet_tcp``: what stock
    Erlang nodes speak, TCP with epmd and a cookie; neither encrypted nor authenticated beyond the cookie."""
    listen_host: str | None = None
    """Address to bind. None: the host part of the node's name if that is an IP address, else 0.0.0.0 (upstream's)."""
    listen_port: int = 0
    """Port to bind (UDP over QUIC, TCP over ``inet_tcp``), 0 for a free one (upstream's and OTP's default)."""
    epmd_port: int | None = None
    """TCP port of epmd, on this host and on others, for ``inet_tcp``. None: ``ERL_EPMD_PORT``, or 4369 (OTP's)."""
    start_epmd: bool = False
    """Start epmd if none answers, for ``inet_tcp``. ``erl`` does so; a library should not start daemons unasked."""
    data_dir: str | Path | None = None
    """Holds keys, pins and the certificate. None: ``data/<name>`` below the working directory."""
    discovery_dir: str | Path | None = Path("data/discovery")
    """Shared directory in which nodes of one host publish their ports (upstream's default); None switches it off."""
    peers: Mapping[str, Address] = field(default_factory=dict)
    """Static addresses by node name; the first thing asked when a node is dialled."""
    discover: Backend | None = None
    """Asked for the addresses of a node after ``peers``: gets its name, returns a list of ``(host, port)``, or None if
    it does not know it; plain or async. Over ``inet_tcp`` epmd is asked instead."""
    dns_srv: bool = False
    """Ask DNS for the record ``_barrel-p2p._udp.HOST`` of a node's host, which gives the port too. Needs the ``dns``
    extra."""
    contact_nodes: tuple[str, ...] = ()
    """Nodes to join the cluster through while this one knows no other: ``seed@10.0.0.1``; ``dns:seed@HOST``, a node
    at each address of HOST; ``srv:seed@_barrel-p2p._udp.HOST``, one for each service record (``dns`` extra)."""
    contact_retry_ms: int = _MEMBERSHIP.contact_retry_ms
    """Pause between attempts to join through ``contact_nodes`` (upstream's default); it grows to twelve times that."""
    active_size: int = _MEMBERSHIP.active_size
    """Neighbours in the overlay, whom broadcasts go to (upstream's and the HyParView paper's)."""
    passive_size: int = _MEMBERSHIP.passive_size
    """Nodes kept as replacements for neighbours (upstream's and the paper's)."""
    arwl: int = _MEMBERSHIP.arwl
    """Hops of the walk that finds neighbours for a new node (upstream's and the paper's)."""
    prwl: int = _MEMBERSHIP.prwl
    """Hops left in that walk where the new node enters a passive view, and hops of a shuffle (upstream's)."""
    shuffle_length: int = _MEMBERSHIP.shuffle_length
    """Names that two nodes exchange at a time (upstream's and the paper's)."""
    shuffle_period_ms: int = _MEMBERSHIP.shuffle_period_ms
    """Time between two such exchanges in quiet times (upstream's)."""
    max_fail_count: int = _MEMBERSHIP.max_fail_count
    """Failed attempts after which a node of the passive view is forgotten (upstream's)."""
    base_backoff_ms: int = _MEMBERSHIP.base_backoff_ms
    """Wait after a first failed attempt, doubled with each further one (upstream's)."""
    passive_max_age_ms: int = _MEMBERSHIP.passive_max_age_ms
    """A node of the passive view that nobody mentioned for so long is forgotten (upstream's)."""
    churn_window_ms: int = _MEMBERSHIP.churn_window_ms
    """Window in which comings and goings are counted: more of them, more exchanges (upstream's)."""
    pending_timeout_ms: int = _MEMBERSHIP.pending_timeout_ms
    """Limit for an attempt to win a neighbour (upstream's)."""
    dist_gc_sweep_period_ms: int = 60_000
    """Time between two looks for channels that nobody uses (upstream's)."""
    dist_gc_min_age_ms: int = 300_000
    """How long a channel outside the active view must have been unused to be closed (upstream's)."""
    lease_ms: int = 10_000
    """How long this node counts as alive after others last heard of it; then its services are taken for dead. It tells
    five times as often that it lives (a guess: a loop may be blocked for seconds)."""
    cookie: str = DEFAULT_COOKIE
    """The shared secret of the distribution handshake. Never sent; over QUIC it comes on top of the Ed25519 keys, over
    ``inet_tcp`` it is all there is, so the default is refused there."""
    trust_mode: Literal["tofu", "strict"] = "tofu"
    """``tofu`` pins the key a node shows first, ``strict`` accepts only keys pinned beforehand. A pin never changes
    in silence."""
    cookie_only_nodes: tuple[str, ...] = ()
    """Patterns ``name@host`` (each half may be ``*``) of nodes that may skip the key exchange; refused with the
    default cookie."""
    auth_timestamp_window_ms: int = 30_000
    """Clocks may differ by twice this (upstream's default)."""
    auth_handshake_timeout_ms: int = 10_000
    """Limit for the whole key exchange (upstream's default)."""
    setup_timeout_ms: int = 7_000
    """Limit for connecting and for each step of the distribution handshake (OTP's ``net_setuptime``)."""
    net_ticktime_ms: int = 60_000
    """A peer from which nothing arrives for this long is down (OTP's ``net_ticktime``). Pings leave at a quarter of
    it."""
    published: bool | None = None
    """Show up in ``nodes()`` of Erlang nodes. None: yes over QUIC, where an upstream node takes no hidden one for a
    member; no over ``inet_tcp``, where a visible node takes part in what the cluster's ``global`` has to agree on."""
    send_high_water: int = 1 << 20
    """A channel with more unsent bytes is busy: its senders wait at their next await point (a guess: a few ms of
    loopback)."""
    send_hard_limit: int = 256 << 20
    """A channel with more unsent bytes is closed: its senders never awaited (a guess: far above one large message)."""
    busy_wait_us: int = 50
    """After messages came, look for more for this long before the event loop sleeps: being woken takes longer than an
    answer of a near peer (measured). A node that waits in vain soon leaves off; 0 for never, as ``erl +sbwt none``."""
    max_message: int = 128 << 20
    """Largest message, in encoded bytes, that is sent or accepted (a guess); at least 64 KiB."""
    max_unauthenticated: int = 64
    """Inbound connections that have not yet authenticated; more are refused (a guess)."""
    none_atom: Literal["undefined", "nil"] = "undefined"
    """The atom that ``None`` stands for: Erlang's habit or Elixir's."""
    on_address: OnAddress | None = None
    """Connect-time hook: gets the peer's name and resolved address, returns the address to dial (a relay, say), or a
    ``Way`` with a UDP socket to use for this connection; plain or async. Asked again when the connection migrates."""
    on_output: Callable[[str], object] | None = None
    """Takes the text that processes of this and other nodes print to ``user``. It is called in a thread, for many texts
    at once. None: standard output."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Check ``given`` and return it as options. Unknown names raise ConfigError with the nearest known one."""
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known options: {', '.join(known)}"
                raise ConfigError(f"Node has no option {name!r}{hint}", name)
        options = cls(**given)
        options._check()
        if options.published is None:
            options = replace(options, published=options.proto_dist == "barrel_p2p")
        return options

    def codec(self, *, exact_empty_str: bool = False) -> Codec:
        """How the node writes and reads terms; ``exact_empty_str`` among nodes of this library."""
        return Codec(none_atom=self.none_atom, max_bytes=self.max_message, exact_empty_str=exact_empty_str)

    def _check(self) -> None:
        def require(ok: bool, option: str, text: str) -> None:
            if not ok:
                raise ConfigError(text, option)

        require(
            self.proto_dist in ("barrel_p2p", "inet_tcp"),
            "proto_dist",
            f"proto_dist must be 'barrel_p2p' or 'inet_tcp', not {self.proto_dist!r}",
        )
        require(
            self.trust_mode in ("tofu", "strict"),
            "trust_mode",
            f"trust_mode must be 'tofu' or 'strict', not {self.trust_mode!r}",
        )
        require(
            isinstance(self.listen_port, int) and 0 <= self.listen_port <= 65535,
            "listen_port",
            f"listen_port must be a port from 0 to 65535, not {self.listen_port!r}",
        )
        require(
            self.epmd_port is None or (isinstance(self.epmd_port, int) and 0 < self.epmd_port <= 65535),
            "epmd_port",
            f"epmd_port must be a port from 1 to 65535, not {self.epmd_port!r}",
        )
        require(
            isinstance(self.cookie, str) and 0 < len(self.cookie) <= 255,
            "cookie",
            "cookie must be a text of 1 to 255 characters",  # it is a secret, so its value is not shown
        )
        require(
            not (self.cookie_only_nodes and self.cookie == DEFAULT_COOKIE),
            "cookie_only_nodes",
            "cookie_only_nodes lets nodes in with the cookie alone, and the cookie is the public default: set cookie=",
        )
        for name in (
            "auth_timestamp_window_ms",
            "auth_handshake_timeout_ms",
            "setup_timeout_ms",
            "net_ticktime_ms",
            "contact_retry_ms",
            "active_size",
            "passive_size",
            "arwl",
            "prwl",
            "shuffle_length",
            "shuffle_period_ms",
            "max_fail_count",
            "base_backoff_ms",
            "passive_max_age_ms",
            "churn_window_ms",
            "pending_timeout_ms",
            "dist_gc_sweep_period_ms",
            "dist_gc_min_age_ms",
            "lease_ms",
            "send_high_water",
            "send_hard_limit",
            "max_message",
            "max_unauthenticated",
        ):
            value = getattr(self, name)
            require(isinstance(value, int) and value > 0, name, f"{name} must be a whole number above 0, not {value!r}")
        for name in _WAITS:
            value = getattr(self, name)
            require(
                value >= MIN_WAIT_MS,
                name,
                f"{name} must be at least {MIN_WAIT_MS} milliseconds, not {value}: healthy peers would be given up",
            )
        require(
            self.max_message >= MIN_MESSAGE,
            "max_message",
            f"max_message must be at least {MIN_MESSAGE}, not {self.max_message}: the node's own messages have to fit",
        )
        require(
            isinstance(self.busy_wait_us, int) and 0 <= self.busy_wait_us <= 1_000,
            "busy_wait_us",
            f"busy_wait_us must be a whole number from 0 to 1000, not {self.busy_wait_us!r}",
        )
        require(
            self.send_high_water < self.send_hard_limit,
            "send_high_water",
            f"send_high_water ({self.send_high_water}) must be below send_hard_limit ({self.send_hard_limit})",
        )
        for name in ("contact_nodes", "cookie_only_nodes"):  # of a text alone each letter would be taken for a node
            value = getattr(self, name)
            require(
                isinstance(value, Sequence) and not isinstance(value, (str, bytes)),
                name,
                f"{name} must be a list of texts, not {value!r}",
            )
        for name in ("discover", "on_address", "on_output"):
            value = getattr(self, name)
            require(value is None or callable(value), name, f"{name} must be a function, not {value!r}")
        require(isinstance(self.peers, Mapping), "peers", f"peers must be addresses by node name, not {self.peers!r}")
        for name, address in self.peers.items():
            require(
                isinstance(address, tuple)
                and len(address) == 2
                and isinstance(address[0], str)
                and isinstance(address[1], int)
                and 0 < address[1] <= 65535,
                "peers",
                f"peers[{name!r}] must be (host, port), not {address!r}",
            )


__all__ = ["DEFAULT_COOKIE", "Address", "OnAddress", "Options", "Way"]
