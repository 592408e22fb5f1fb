"""The exit statuses of the ``barrel`` command."""

from __future__ import annotations

OK = 0
FAILED = 1  # the called function, or the app of a node
USAGE = 2  # an argument, a file or a variable; what argparse uses
NOT_CONNECTED = 3  # nobody there, or the handshake was refused
