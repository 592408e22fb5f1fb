"""What survives a restart: keys, trust store, write-ahead store."""
