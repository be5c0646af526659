"""Which model version is the champion: evidence in, a decision with its reasons out."""
