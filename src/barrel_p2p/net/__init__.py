"""Moves bytes between nodes: the QUIC and TCP carriers, certificates, discovery."""
