"""Erlang distribution for Python."""
