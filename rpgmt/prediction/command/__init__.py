"""The command `predict`: from sources to a folder of results."""
