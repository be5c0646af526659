"""Running the product: the embedded stack, the compose deployment, the doctor."""

SEAWEED_VOLUMES = 1000
"""That SeaweedFS may make: each bucket takes one, and an empty one takes no space. By itself it makes as many as fit
the free space at up to 1 GB each; on an almost full disk a new bucket then accepts no object."""
