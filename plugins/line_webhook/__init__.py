"""A webhook that starts checks of dataset lines: object storage calls it when an object has changed."""
