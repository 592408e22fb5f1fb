"""Hybrid logical clock, OR-map, deltas, rendezvous hash: pure values and their merges."""
