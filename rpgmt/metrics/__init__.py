"""Metrics over a whole validation set."""
