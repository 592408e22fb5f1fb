"""The ``barrel`` command: start a node, and look at others from outside.

``main`` finds the command and turns errors into one line and an exit status; each command has a file of its own.
"""
