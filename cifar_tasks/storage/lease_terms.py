"""How long a lease is held."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LeaseTerms:
    """Seconds; the same for all processes that want the lease."""

    ttl: float = 60
    """Age at which a lease may be taken over. The retry of a training that was killed waits this long at most."""
    renew_interval: float = 10
    """Several renewals may fail before the holder gives up."""
    trusted_for: float = 40
    """How long the holder works without a renewal. Well below `ttl`: training checks between two steps, every 5 s, and
    must have stopped when another process begins."""
    poll_interval: float = 3
    """Between two looks of a process that waits; each is one read."""


TERMS = LeaseTerms()
