"""Public test support: virtual time, simulated network, checkers, pytest plugin."""
