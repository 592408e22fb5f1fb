"""What the Rust extension offers; compared with the built module by mypy.stubtest."""
