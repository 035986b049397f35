"""Training and evaluation: the loop, on Lightning Fabric; the run folder; the model file.

Nothing is imported here: Fabric takes seconds, and only training needs it.
"""
