"""Training and evaluation on Lightning's Trainer; the run folder; the model file.

Nothing is imported here: Lightning takes seconds, and only ``rpgmt.engine.fit`` needs it.
"""
