"""The ``barrel`` command, a client of the public API."""
