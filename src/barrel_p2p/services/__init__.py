"""What users came for: rpc, registry, maps, streams, ..."""
