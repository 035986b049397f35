"""What the benchmarks share: none imports another."""
