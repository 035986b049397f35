"""The ways to generate: index tables for PyTorch's own operations, and Triton kernels. None knows another, nor who chooses."""
