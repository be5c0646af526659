"""Scores of a model on test images, names as text, and figures; reads and writes nothing."""
