"""A flood of handshakes that nobody means to finish, from many addresses of the loopback.

    python tests/foreign/flood.py 127.0.0.1 9100 --rate 10000 --seconds 10 --then stall

Each handshake begins with a valid Initial under connection ids of its own. ``--then`` says what follows: ``nothing``
(as from forged addresses), ``stall`` (a Retry is answered, so the address is proven, and then nothing) or ``hang-up``
(the same, and the connection is ended at once, to begin the next). It prints one line of JSON: what was sent, and what
came back.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import sys
import time
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from foreign.initials import Hello, fresh_id, is_initial, retry_of

PREPARED = 20_000  # packets made before the first is sent; then they come round again
READ_AT_ONCE = 64


class Flood:
    """Sends; ``counts`` says what came of it."""

    def __init__(self, target: tuple[str, int], *, addresses: int, then: str) -> None:
        self.counts: Counter[str] = Counter()
        self._target = target
        self._then = then
        self._hello = Hello()
        self._sockets = [_socket(f"127.9.{n >> 8}.{n & 255}") for n in range(1, addresses + 1)]
        self._selector = selectors.DefaultSelector()
        for each in self._sockets:
            self._selector.register(each, selectors.EVENT_READ)

    def run(self, rate: int, seconds: float) -> float:
        """Returns the seconds that it took."""
        count = int(rate * seconds)
        packets = [self._hello.initial(fresh_id()) for _ in range(min(count, PREPARED))]
        start = time.perf_counter()
        sent = 0
        while sent < count and time.perf_counter() - start < 2 * seconds:
            due = min(count, int((time.perf_counter() - start) * rate) + 1, sent + 200)
            while sent < due:
                self._send(self._sockets[sent % len(self._sockets)], packets[sent % len(packets)])
                sent += 1
            self._read(0.0005)
        took = time.perf_counter() - start
        self.counts["begun"] = sent
        return took

    def _read(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            for _ in range(READ_AT_ONCE):
                try:
                    datagram = sock.recv(2048)
                except BlockingIOError:
                    break
                self._received(sock, datagram)

    def _received(self, sock: socket.socket, datagram: bytes) -> None:
        retry = retry_of(datagram)
        if retry is None:
            # A refusal is a close frame and its packet; who is let in gets a padded datagram.
            kind = "refused" if is_initial(datagram) and len(datagram) < 200 else "answered"
            self.counts[kind] += 1
            return
        self.counts["retries"] += 1
        if self._then == "nothing":
            return
        server_id, token = retry
        self._send(sock, self._hello.initial(server_id, token))
        self.counts["proven"] += 1
        if self._then == "hang-up":
            self._send(sock, self._hello.hang_up(server_id, token))

    def _send(self, sock: socket.socket, datagram: bytes) -> None:
        try:
            sock.sendto(datagram, self._target)
        except BlockingIOError:
            self.counts["unsent"] += 1


def _socket(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 0))
    sock.setblocking(False)
    return sock


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=int, default=10_000, help="handshakes begun in a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--addresses", type=int, default=32)
    parser.add_argument("--then", choices=("nothing", "stall", "hang-up"), default="nothing")
    options = parser.parse_args()
    flood = Flood((options.host, options.port), addresses=options.addresses, then=options.then)
    took = flood.run(options.rate, options.seconds)
    print(json.dumps({"seconds": round(took, 3), "rate": round(flood.counts["begun"] / took), **flood.counts}))


if __name__ == "__main__":
    main()
