"""An epmd of our own on a free loopback port, so that one that already runs here is left alone."""

from __future__ import annotations

import socket
import time

from child import Child


class Epmd(Child):
    def __init__(self) -> None:
        self.port = _free_tcp_port()
        super().__init__("epmd", ["epmd", "-address", "127.0.0.1", "-port", str(self.port)])
        try:
            self._wait_listening()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """It reads no commands."""
        self._process.kill()
        self._process.wait()

    def _wait_listening(self, timeout: float = 5.0) -> None:
        end = time.monotonic() + timeout
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if time.monotonic() > end:
                raise TimeoutError(f"epmd does not listen on 127.0.0.1:{self.port}")
            time.sleep(0.02)


def _free_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
