"""Two hosts joined by one wire that can be cut for real: network namespaces of this machine and a veth pair.

::

    with Wire() as wire:
        subprocess.Popen([*wire.left.inside, "erl", ...])
        wire.cut()    # every packet is dropped, in both directions, and nobody is told
        wire.heal()

Nothing leaves the machine: the namespaces have no other way out. Making them takes root.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pytest

PREFIX = "barrel_p2p"
_numbers = itertools.count()


@dataclass(frozen=True)
class Host:
    """One end: ``inside`` is the command in front of a program that runs on it."""

    namespace: str
    address: str
    device: str

    @property
    def inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]


class Wire:
    def __init__(self) -> None:
        number = next(_numbers)
        self.left, self.right = (
            Host(f"{PREFIX}-{os.getpid()}-{number}{side}", address, f"wire{side}")
            for side, address in (("a", "10.99.0.1"), ("b", "10.99.0.2"))
        )
        self._cut: tuple[Host, ...] = ()

    def cut(self, *mute: Host) -> None:
        """Drop all that the ``mute`` ends send from now on, by default both. (netem would do; not every kernel has
        it.)"""
        self._cut = mute or (self.left, self.right)
        for host in self._cut:
            _do("tc", "-n", host.namespace, "qdisc", "add", "dev", host.device, "root", "blackhole")

    def heal(self) -> None:
        for host in self._cut:
            _do("tc", "-n", host.namespace, "qdisc", "del", "dev", host.device, "root")
        self._cut = ()

    def take_address(self, host: Host) -> None:
        """``host`` has lost its address for good."""
        _do("ip", "-n", host.namespace, "address", "del", f"{host.address}/24", "dev", host.device)

    def give_address(self, host: Host, address: str) -> None:
        _do("ip", "-n", host.namespace, "address", "add", f"{address}/24", "dev", host.device)

    def __enter__(self) -> Self:
        _skip_without_namespaces()
        _clear_away()
        try:
            for host in (self.left, self.right):
                _do("ip", "netns", "add", host.namespace)
            one, other = self.left, self.right
            ends = ["dev", one.device, "netns", one.namespace, "type", "veth"]
            _do("ip", "link", "add", *ends, "peer", "name", other.device, "netns", other.namespace)
            for host in (one, other):
                _do("ip", "-n", host.namespace, "address", "add", f"{host.address}/24", "dev", host.device)
                for device in ("lo", host.device):
                    _do("ip", "-n", host.namespace, "link", "set", device, "up")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        for host in (self.left, self.right):
            with contextlib.suppress(subprocess.CalledProcessError):
                _do("ip", "netns", "delete", host.namespace)


def _do(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, " ".join(command), done.stdout, done.stderr)
    return done.stdout


def _skip_without_namespaces() -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces can be made by root alone")
    for tool in ("ip", "tc"):
        assert shutil.which(tool), f"{tool} is missing: these tests need it (apt-get install iproute2)"
    name = f"{PREFIX}-{os.getpid()}-try"
    try:
        _do("ip", "netns", "add", name)
        _do("ip", "netns", "delete", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine lets nobody make network namespaces: {error.stderr.strip()}")


def _clear_away() -> None:
    """Remove what runs left behind that were killed before they could."""
    for line in _do("ip", "netns", "list").splitlines():
        name = line.split()[0]
        prefix, _, rest = name.partition("-")
        if prefix == PREFIX and not os.path.exists(f"/proc/{rest.partition('-')[0]}"):
            with contextlib.suppress(subprocess.CalledProcessError):
                _do("ip", "netns", "delete", name)
