"""Key points to heat maps and back."""
