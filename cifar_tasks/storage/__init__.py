"""Object storage: content with digests, checkpoints, leases."""
