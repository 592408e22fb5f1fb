"""Every protocol as a pure machine: no clock, no randomness, no socket of its own."""
