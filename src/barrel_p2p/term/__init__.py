"""Erlang terms and the external term format: bytes <-> values.

``types`` and ``maps`` hold the values that Python lacks, ``codec`` is the native codec, ``reference`` the
same in plain Python, to read and to test against.
"""
