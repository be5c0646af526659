"""Metrics and plots from logits and labels."""
