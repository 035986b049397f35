"""Trained networks for other programs: files that hold the generated weights and need none of this library."""
