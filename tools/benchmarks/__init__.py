"""The benchmarks of `tools/benchmark.py`: a folder each, and `common` for what they share."""
