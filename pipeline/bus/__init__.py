"""Redis as a message bus: records, keys, streams, settling, leases, dead letters and status."""
