"""Recurrent parameter generation: the weights of a network made from a small bank of parameters."""
