"""Checks of a delivery against the dataset version in use: arrays in, a report out."""
