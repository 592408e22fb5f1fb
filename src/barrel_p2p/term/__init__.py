"""Erlang terms and the external term format: bytes <-> values."""
