"""Signals from other nodes: each control message becomes a call of the local runtime.

The counterpart, signals to other nodes, is ``remote.py``. Whatever a peer sends, nothing here raises: a message that breaks
the protocol closes that peer's channel with the reason in the log, an unknown operation is logged once and skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from barrel_p2p.errors import ProtocolError
from barrel_p2p.net.quic import NO_MESSAGE
from barrel_p2p.node.channel import Batch, Channel, Control
from barrel_p2p.proto.control import Op
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.term.types import Atom, Pid, Reference

log = logging.getLogger("barrel_p2p.dispatch")

_SEND = int(Op.SEND)
_SEND_SENDER = int(Op.SEND_SENDER)

Handler = Callable[[Channel, Control, Any], None]


class Dispatch:
    """Delivers what arrives from peers to ``runtime``. ``spawn`` and ``spawn_reply`` go to the remote spawner."""

    def __init__(self, runtime: Runtime, *, spawn: Handler, spawn_reply: Handler) -> None:
        self._runtime = runtime
        self._unknown: set[int] = set()
        self._handlers: dict[int, Handler] = {
            Op.LINK: self._link,
            Op.SEND: self._send,
            Op.SEND_SENDER: self._send,
            Op.SEND_TT: self._send,
            Op.SEND_SENDER_TT: self._send,
            Op.EXIT: self._exit,
            Op.EXIT_TT: self._exit,
            Op.PAYLOAD_EXIT: self._payload_exit,
            Op.PAYLOAD_EXIT_TT: self._payload_exit,
            Op.EXIT2: self._exit2,
            Op.EXIT2_TT: self._exit2,
            Op.PAYLOAD_EXIT2: self._payload_exit2,
            Op.PAYLOAD_EXIT2_TT: self._payload_exit2,
            Op.UNLINK: self._unlink,
            Op.UNLINK_ID: self._unlink_id,
            Op.UNLINK_ID_ACK: self._unlink_ack,
            Op.NODE_LINK: self._ignore,
            Op.REG_SEND: self._reg_send,
            Op.REG_SEND_TT: self._reg_send,
            Op.ALIAS_SEND: self._alias_send,
            Op.ALIAS_SEND_TT: self._alias_send,
            Op.GROUP_LEADER: self._group_leader,
            Op.MONITOR_P: self._monitor,
            Op.DEMONITOR_P: self._demonitor,
            Op.MONITOR_P_EXIT: self._monitor_exit,
            Op.PAYLOAD_MONITOR_P_EXIT: self._payload_monitor_exit,
            Op.SPAWN_REQUEST: spawn,
            Op.SPAWN_REQUEST_TT: spawn,
            Op.SPAWN_REPLY: spawn_reply,
            Op.SPAWN_REPLY_TT: spawn_reply,
        }

    def received(self, channel: Channel, batch: Batch) -> None:
        """Deliver a batch. The loop is the hot path of a node: sends to pids are handled in place."""
        processes = self._runtime.processes
        creation = self._runtime.creation
        for control, message in batch:
            try:
                op = control[0]
                if op == _SEND_SENDER or op == _SEND:
                    to = control[2]
                    if to.creation == creation:
                        process = processes.get(to.id | to.serial << 32)
                        if process is not None:
                            process.put(message)
                            if process.full:
                                channel.wait_for_room(process)
                    continue
                handler = self._handlers.get(op)
                if handler is None:
                    self._skip(channel, op)
                else:
                    handler(channel, control, message)
            except (ProtocolError, LookupError, TypeError, ValueError, AttributeError) as error:
                log.error(
                    "%s broke the distribution protocol with %.200r: %s; its channel is closed",
                    channel.name,
                    control,
                    error,
                )
                channel.close("protocol error")
                return

    def _skip(self, channel: Channel, op: object) -> None:
        if not isinstance(op, int):
            raise ProtocolError("the operation of a control message is not an integer")
        if op not in self._unknown and len(self._unknown) < 256:
            self._unknown.add(op)
            log.warning("%s sent the unknown control message %d; it is skipped, now and later", channel.name, op)

    # --- sends ------------------------------------------------------------------------------------------------------

    def _send(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.deliver(_pid(control[2]), _payload(message))

    def _reg_send(self, channel: Channel, control: Control, message: Any) -> None:
        process = self._runtime.deliver_name(_atom(control[3]), _payload(message))
        if process is not None and process.full:
            channel.wait_for_room(process)

    def _alias_send(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.deliver_alias(_ref(control[2]), _payload(message))

    # --- links ------------------------------------------------------------------------------------------------------

    def _link(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.link_in(_theirs(channel, control[1]), _pid(control[2]))

    def _unlink(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.unlink_in(_theirs(channel, control[1]), _pid(control[2]))

    def _unlink_id(self, channel: Channel, control: Control, message: Any) -> None:
        unlink_id, remote, local = control[1], _theirs(channel, control[2]), _pid(control[3])
        self._runtime.unlink_in(remote, local)
        channel.send(None, (int(Op.UNLINK_ID_ACK), unlink_id, local, remote))

    def _unlink_ack(self, channel: Channel, control: Control, message: Any) -> None:
        unlink_id, remote, local = control[1], _theirs(channel, control[2]), _pid(control[3])
        if channel.unlinks.get((local, remote)) == unlink_id:
            del channel.unlinks[local, remote]

    def _exit(self, channel: Channel, control: Control, message: Any) -> None:
        self._link_broken(channel, control, control[-1])

    def _payload_exit(self, channel: Channel, control: Control, message: Any) -> None:
        self._link_broken(channel, control, _payload(message))

    def _link_broken(self, channel: Channel, control: Control, reason: Any) -> None:
        remote, local = _theirs(channel, control[1]), _pid(control[2])
        if (local, remote) not in channel.unlinks:  # else it crossed our UNLINK_ID and belongs to the removed link
            self._runtime.exit_in(remote, local, reason, linked=True)

    def _exit2(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.exit_in(_theirs(channel, control[1]), _pid(control[2]), control[-1], linked=False)

    def _payload_exit2(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.exit_in(
            _theirs(channel, control[1]), _pid(control[2]), _payload(message), linked=False
        )

    def _group_leader(self, channel: Channel, control: Control, message: Any) -> None:
        process = self._runtime.process(_pid(control[2]))
        if process is not None:
            process.group_leader = _pid(control[1])

    def _ignore(self, channel: Channel, control: Control, message: Any) -> None:
        """Sent by OTP for its own bookkeeping; means nothing to us."""

    # --- monitors ---------------------------------------------------------------------------------------------------

    def _monitor(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.monitor_in(_theirs(channel, control[1]), _target(control[2]), _ref(control[3]))

    def _demonitor(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.demonitor_in(_theirs(channel, control[1]), _ref(control[3]))

    def _monitor_exit(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.down_in(_ref(control[3]), control[4], node=channel.name)

    def _payload_monitor_exit(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.down_in(_ref(control[3]), _payload(message), node=channel.name)


def _pid(term: Any) -> Pid:
    if type(term) is not Pid:
        raise ProtocolError(f"{term!r:.100} stands where a pid belongs")
    return term


def _theirs(channel: Channel, term: Any) -> Pid:
    """A pid in whose name the peer speaks: it must be one of the peer's own."""
    pid = _pid(term)
    if pid.node != channel.name:
        raise ProtocolError(f"{channel.name} speaks for {pid}, which is not its process")
    return pid


def _ref(term: Any) -> Reference:
    if type(term) is not Reference:
        raise ProtocolError(f"{term!r:.100} stands where a reference belongs")
    return term


def _atom(term: Any) -> Atom:
    if term is None:
        return Atom("undefined")
    if type(term) is not Atom:
        raise ProtocolError(f"{term!r:.100} stands where an atom belongs")
    return term


def _target(term: Any) -> Pid | Atom:
    return term if type(term) is Pid else _atom(term)


def _payload(message: Any) -> Any:
    if message is NO_MESSAGE:
        raise ProtocolError("the message that belongs to it is missing")
    return message
