"""Signals from other nodes: each control message becomes a call of the local runtime.

The counterpart, signals to other nodes, is ``remote.py``. Whatever a peer sends, nothing here raises: a message that
breaks the protocol closes that peer's channel with the reason in the log, an unknown operation is logged once and
skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from barrel_p2p.errors import ChannelOverflow, ProtocolError
from barrel_p2p.net.quic import NO_MESSAGE
from barrel_p2p.node.channel import Batch, Channel, Control
from barrel_p2p.node.propagation import Propagation
from barrel_p2p.node.spawner import Spawner
from barrel_p2p.process.process import Process
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.proto.control import Op, check
from barrel_p2p.shown import Shown, shown
from barrel_p2p.term.types import Atom, ImproperList, Pid, Reference

log = logging.getLogger("barrel_p2p.dispatch")

_TO_PID = (int(Op.SEND_SENDER), int(Op.SEND))
_ALIAS_SEND = int(Op.ALIAS_SEND)

# Links with the processes of one peer and monitors of its processes on ours, together: 80 MB, and half a second for all
# to hear of one death. A guess: nobody has as many processes worth watching here.
MAX_BONDS = 200_000

Handler = Callable[[Channel, Control, Any], None]
Receiver = Callable[[Channel, Any], None]


class Dispatch:
    """Delivers what arrives from peers to ``runtime``; what belongs to remote spawns goes to ``spawner``."""

    def __init__(self, runtime: Runtime, spawner: Spawner, propagation: Propagation) -> None:
        self._runtime = runtime
        self._propagation = propagation
        self._spawner = spawner
        self._unknown: set[int] = set()
        self._receivers: dict[Atom, Receiver] = {}
        self._handlers: dict[int, Handler] = {
            Op.LINK: self._link,
            Op.SEND: self._send,
            Op.SEND_SENDER: self._send,
            Op.SEND_TT: self._send_traced,
            Op.SEND_SENDER_TT: self._send_traced,
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
            Op.REG_SEND_TT: self._reg_send_traced,
            Op.ALIAS_SEND: self._alias_send,
            Op.ALIAS_SEND_TT: self._alias_send,
            Op.GROUP_LEADER: self._group_leader,
            Op.MONITOR_P: self._monitor,
            Op.DEMONITOR_P: self._demonitor,
            Op.MONITOR_P_EXIT: self._monitor_exit,
            Op.PAYLOAD_MONITOR_P_EXIT: self._payload_monitor_exit,
            Op.SPAWN_REQUEST: spawner.request_in,
            Op.SPAWN_REQUEST_TT: spawner.request_in,
            Op.SPAWN_REPLY: spawner.reply_in,
            Op.SPAWN_REPLY_TT: spawner.reply_in,
        }

    def deliver_to(self, name: Atom, receiver: Receiver | None) -> None:
        """Give what other nodes send to ``name`` to a part of this node, with the channel it came on, before any
        process of that name; None: no longer. The receiver judges what it gets: a hostile message must not make it
        raise."""
        if receiver is None:
            self._receivers.pop(name, None)
        else:
            self._receivers[name] = receiver

    def received(self, channel: Channel, batch: Batch) -> None:
        """Deliver a batch. The loop is the hot path of a node: sends to pids are handled in place."""
        processes = self._runtime.processes
        creation = self._runtime.creation
        deliver_alias = self._runtime.deliver_alias
        deliver_reply = self._runtime.deliver_reply
        for control, message in batch:
            if len(control) == 3 and message is not NO_MESSAGE:
                op, _, to = control
                if op in _TO_PID and type(to) is Pid:
                    if (
                        type(message) is tuple
                        and len(message) == 2
                        and type(message[0]) is ImproperList
                        and deliver_reply(message)
                    ):
                        continue
                    process = processes.get(to.id | to.serial << 32)
                    if process is not None and to.creation == creation:
                        process.put(message)
                        if process.full:
                            channel.wait_for_room(process)
                    continue
                if op == _ALIAS_SEND and type(to) is Reference:
                    process = deliver_alias(to, message)
                    if process is not None and process.full:
                        channel.wait_for_room(process)
                    continue
            try:
                op = check(control, has_payload=message is not NO_MESSAGE)
                handler = self._handlers.get(control[0])
                if op is None or handler is None:
                    self._skip(channel, control[0])
                else:
                    handler(channel, control, message)
            except ChannelOverflow:
                return  # it asks and does not read the answers: the channel is closed, and the log says so
            except ProtocolError as error:
                channel.break_off(f"{shown(control)}: {error}")
                return

    def _skip(self, channel: Channel, op: int) -> None:
        if op not in self._unknown and len(self._unknown) < 256:
            self._unknown.add(op)
            log.warning(
                "%s sent the unknown control message %d; it is skipped, now and later",
                channel.name,
                op,
                extra={"peer": channel.name},
            )

    # --- sends ------------------------------------------------------------------------------------------------------

    def _send(self, channel: Channel, control: Control, message: Any) -> None:
        is_reply = type(message) is tuple and len(message) == 2 and type(message[0]) is ImproperList
        if not (is_reply and self._runtime.deliver_reply(message)):
            self._wait_for_room(channel, self._runtime.deliver(control[2], message))

    def _reg_send(self, channel: Channel, control: Control, message: Any) -> None:
        name = _name(control[3])
        receiver = self._receivers.get(name)
        if receiver is not None:
            channel.system_messages += 1
            try:
                receiver(channel, message)
            except Exception:  # a bug of ours costs one message, not the channel
                log.exception(
                    "internal error: %s's message to %s: %s",
                    channel.name,
                    name,
                    Shown(message),
                    extra={"peer": channel.name},
                )
            return
        self._wait_for_room(channel, self._runtime.deliver_name(name, message))

    @staticmethod
    def _wait_for_room(channel: Channel, process: Process | None) -> None:
        if process is not None and process.full:
            channel.wait_for_room(process)

    def _send_traced(self, channel: Channel, control: Control, message: Any) -> None:
        self._send(channel, control, self._propagation.incoming(control[3], message))

    def _reg_send_traced(self, channel: Channel, control: Control, message: Any) -> None:
        self._reg_send(channel, control, self._propagation.incoming(control[4], message))

    def _alias_send(self, channel: Channel, control: Control, message: Any) -> None:
        self._wait_for_room(channel, self._runtime.deliver_alias(control[2], message))

    # --- links ------------------------------------------------------------------------------------------------------

    def _link(self, channel: Channel, control: Control, message: Any) -> None:
        self._check_bonds(channel)
        self._runtime.link_in(_theirs(channel, control[1]), control[2])

    def _unlink(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.unlink_in(_theirs(channel, control[1]), control[2])

    def _unlink_id(self, channel: Channel, control: Control, message: Any) -> None:
        unlink_id, remote, local = control[1], _theirs(channel, control[2]), control[3]
        self._runtime.unlink_in(remote, local)
        channel.send(None, (int(Op.UNLINK_ID_ACK), unlink_id, local, remote))

    def _unlink_ack(self, channel: Channel, control: Control, message: Any) -> None:
        unlink_id, remote, local = control[1], _theirs(channel, control[2]), control[3]
        if channel.unlinks.get((local, remote)) == unlink_id:
            del channel.unlinks[local, remote]

    def _exit(self, channel: Channel, control: Control, message: Any) -> None:
        self._link_broken(channel, control, control[-1])

    def _payload_exit(self, channel: Channel, control: Control, message: Any) -> None:
        self._link_broken(channel, control, message)

    def _link_broken(self, channel: Channel, control: Control, reason: Any) -> None:
        remote, local = _theirs(channel, control[1]), control[2]
        if (local, remote) in channel.unlinks:
            return  # it crossed our UNLINK_ID and belongs to the removed link
        if not self._runtime.exit_in(remote, local, reason, linked=True):
            self._spawner.early_exit(channel.name, remote, local, reason)

    def _exit2(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.exit_in(_theirs(channel, control[1]), control[2], control[-1], linked=False)

    def _payload_exit2(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.exit_in(_theirs(channel, control[1]), control[2], message, linked=False)

    def _group_leader(self, channel: Channel, control: Control, message: Any) -> None:
        process = self._runtime.find(control[2])
        if process is not None:
            process.group_leader = control[1]

    def _ignore(self, channel: Channel, control: Control, message: Any) -> None:
        """Sent by OTP for its own bookkeeping; means nothing to us."""

    # --- monitors ---------------------------------------------------------------------------------------------------

    def _monitor(self, channel: Channel, control: Control, message: Any) -> None:
        self._check_bonds(channel)
        self._runtime.monitor_in(
            _theirs(channel, control[1]), control[2] if type(control[2]) is Pid else _name(control[2]), control[3]
        )

    def _check_bonds(self, channel: Channel) -> None:
        bonds = self._runtime.bonds(channel.name)
        if bonds >= MAX_BONDS:
            raise ProtocolError(f"{bonds} links and monitors bind its processes to ours already")

    def _demonitor(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.demonitor_in(_theirs(channel, control[1]), control[3])

    def _monitor_exit(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.down_in(control[1], control[3], control[4], node=channel.name)

    def _payload_monitor_exit(self, channel: Channel, control: Control, message: Any) -> None:
        self._runtime.down_in(control[1], control[3], message, node=channel.name)


def _theirs(channel: Channel, pid: Pid) -> Pid:
    """A pid in whose name the peer speaks: it must be one of the peer's own."""
    if pid.node != channel.name:
        raise ProtocolError(f"{channel.name} speaks for {pid}, which is not its process")
    return pid


def _name(term: Any) -> Atom:
    """A registered name; the codec gives three atoms as Python's own values."""
    return term if type(term) is Atom else Atom(_NAMES[term])


_NAMES = {None: "undefined", True: "true", False: "false"}
