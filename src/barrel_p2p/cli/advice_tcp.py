"""What a refusal means over TCP, where it is not what it is over QUIC: entries of the same form as ``advice``'s."""

from __future__ import annotations

HERE, THERE, EITHER, BETWEEN = "ours", "theirs", "one of the two sides", "the network, or the address"

_DOCTOR = "barrel doctor {node} --proto-dist inet_tcp"
_NO_NODE = (
    "Look what listens at this port: it is no Erlang node, or one that speaks another distribution (it was started "
    "with -proto_dist inet_tls, say). Both nodes have to speak the plain TCP one."
)

TCP_TABLE: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    # --- before the dial
    "unknown_host": (
        "address",
        HERE,
        "Correct the host in the node's name, or make it resolve on this machine (DNS, /etc/hosts).",
        (),
    ),
    "no_own_epmd": (
        "epmd",
        HERE,
        "This command visits as a node, and a node needs the epmd of its own host. Start it, or let the command do so "
        "(--start-epmd); if it has another port than 4369, say so (ERL_EPMD_PORT, --epmd-port).",
        ("epmd -daemon",),
    ),
    "no_epmd_there": (
        "epmd",
        THERE + ", or the network",
        "See on that host what `epmd -names` says: epmd starts with the first node (erl -name, erl -sname). If it has "
        "another port than 4369, give that here; a firewall in between has to let epmd's port through (TCP).",
        (_DOCTOR + " --epmd-port PORT",),
    ),
    "not_in_epmd": (
        "epmd",
        THERE + ": it does not run, or goes by another name",
        "Start it, or correct the name. (A node that was started with another ERL_EPMD_PORT, or with -dist_listen "
        "false, is not in this list.)",
        (),
    ),
    "name_form": (
        "name",
        HERE,
        "Leave --as out, or give a name of the form that the node has: short, name@host without a dot (erl -sname), or "
        "long, with one (erl -name).",
        (),
    ),
    # --- the dial
    "unreachable": (
        "transport",
        THERE + ", or the port is old",
        "If epmd gave the port, the node listens at another address of its host (inet_dist_use_interface) or has just "
        "ended. If --peers gave it, ask epmd instead, or correct it.",
        (_DOCTOR,),
    ),
    "no_answer": (
        "transport",
        BETWEEN,
        "See that the host is up, and that no firewall drops TCP to this port. A node takes any free port, unless "
        "inet_dist_listen_min and inet_dist_listen_max say which.",
        (),
    ),
    # --- the handshake
    "silent": ("name", THERE, "Try again; if it stays so: " + _NO_NODE[0].lower() + _NO_NODE[1:], ()),
    "malformed": ("name", THERE, _NO_NODE, ()),
    "unexpected_message": ("name", THERE, _NO_NODE, ()),
    "name_mismatch": (
        "name",
        "ours: the node there is called {answered}",
        "Use that name, letter for letter. If peers gives its address, that may be wrong, too.",
        ("barrel doctor {answered} --proto-dist inet_tcp",),
    ),
    "not_allowed": (
        "name",
        THERE,
        "Its log has the reason. Usual ones: net_kernel:allow/1 was called there, and our name {own_name} is not on "
        "its list (--as gives this command a fixed name); it demands a distribution flag that we don't offer.",
        (),
    ),
    "bad_cookie": (
        "cookie",
        EITHER,
        "Give both the same cookie: here by --cookie, BARREL_COOKIE or a file; there by -setcookie, "
        "erlang:set_cookie/1, or the file .erlang.cookie in the home directory of its user.",
        ("BARREL_COOKIE=... " + _DOCTOR,),
    ),
}


__all__ = ["BETWEEN", "EITHER", "HERE", "TCP_TABLE", "THERE"]
