"""Erlang distribution for Python: processes, servers and supervisors that talk across nodes.

::

    async with Node("alice@127.0.0.1", cookie="secret") as node:
        print(await call(("counter", "bob@127.0.0.1"), "inc"))

The map of the package; imports point one way, from the top of this list to the bottom:

- ``cli``: the ``barrel`` command, a client of what is exported here
- ``services``: what users came for: remote calls, the registry, maps, ...
- ``node``: the driver: runs the machines over net and disk and delivers to processes
- ``proto``: every protocol as a pure machine: authentication, handshake, control messages
- ``process``: processes, links, monitors, servers, supervisors on one node
- ``net``: moves bytes between nodes; ``disk``: what survives a restart
- ``crdt``, ``term``: pure values and their bytes; ``errors``: all that can be raised; ``shown``: values in log lines
- ``testing``: public test support, may import anything
"""

from __future__ import annotations

from .errors import (
    AuthError,
    BadTag,
    BarrelError,
    CallError,
    CallTimeout,
    ChannelOverflow,
    ConfigError,
    DecodeError,
    EncodeError,
    Exit,
    ExitReason,
    HandshakeError,
    InternalError,
    MapClosed,
    MigrationDisabled,
    MigrationError,
    MigrationTimeout,
    NameTaken,
    NodeDown,
    NoProc,
    NotConnected,
    NotDialer,
    NotInProcess,
    NotSupported,
    ProtocolError,
    ReceiveConflict,
    RemoteError,
    StartError,
    StoreError,
    StreamClosed,
    StreamError,
    StreamLost,
    StreamRefused,
    StreamReset,
    StreamStopped,
)
from .node.node import Node, OverlayStatistics, PathStats, PeerInfo, PeerStatistics, Statistics
from .node.options import Way
from .process import io
from .process.api import (
    Timer,
    alias,
    cancel_timer,
    demonitor,
    exit,
    is_alive,
    link,
    monitor,
    process_flag,
    processes,
    receive,
    register,
    self_pid,
    send,
    send_after,
    spawn,
    spawn_link,
    spawn_monitor,
    unalias,
    unlink,
    unregister,
    whereis,
)
from .process.call import call, cast, reply, stop
from .process.child import ChildSpec
from .process.gen_server import IGNORE, NOREPLY, GenServer, Reply, Stop
from .process.io import group_leader
from .process.multi_call import abcast, multi_call
from .process.names import global_, via
from .process.requests import Request, receive_response, send_request, wait_response
from .process.supervisor import Supervisor
from .proto.registry_events import Service
from .proto.replicated import Applied, Comparable, Replicated
from .services.map import MapStatistics, ReplicatedMap
from .services.observer import export_observer
from .services.replicate import Replica
from .services.stream import Stream
from .term.types import Atom, BitString, Export, Fun, ImproperList, Pid, Port, Reference

__all__ = [
    "IGNORE",
    "NOREPLY",
    "Applied",
    "Atom",
    "AuthError",
    "BadTag",
    "BarrelError",
    "BitString",
    "CallError",
    "CallTimeout",
    "ChannelOverflow",
    "ChildSpec",
    "Comparable",
    "ConfigError",
    "DecodeError",
    "EncodeError",
    "Exit",
    "ExitReason",
    "Export",
    "Fun",
    "GenServer",
    "HandshakeError",
    "ImproperList",
    "InternalError",
    "MapClosed",
    "MapStatistics",
    "MigrationDisabled",
    "MigrationError",
    "MigrationTimeout",
    "NameTaken",
    "NoProc",
    "Node",
    "NodeDown",
    "NotConnected",
    "NotDialer",
    "NotInProcess",
    "NotSupported",
    "OverlayStatistics",
    "PathStats",
    "PeerInfo",
    "PeerStatistics",
    "Pid",
    "Port",
    "ProtocolError",
    "ReceiveConflict",
    "Reference",
    "RemoteError",
    "Replica",
    "Replicated",
    "ReplicatedMap",
    "Reply",
    "Request",
    "Service",
    "StartError",
    "Statistics",
    "Stop",
    "StoreError",
    "Stream",
    "StreamClosed",
    "StreamError",
    "StreamLost",
    "StreamRefused",
    "StreamReset",
    "StreamStopped",
    "Supervisor",
    "Timer",
    "Way",
    "abcast",
    "alias",
    "call",
    "cancel_timer",
    "cast",
    "demonitor",
    "exit",
    "export_observer",
    "global_",
    "group_leader",
    "io",
    "is_alive",
    "link",
    "monitor",
    "multi_call",
    "process_flag",
    "processes",
    "receive",
    "receive_response",
    "register",
    "reply",
    "self_pid",
    "send",
    "send_after",
    "send_request",
    "spawn",
    "spawn_link",
    "spawn_monitor",
    "stop",
    "unalias",
    "unlink",
    "unregister",
    "via",
    "wait_response",
    "whereis",
]
