"""Losses: each gives the sum over its valid targets and their number."""
