"""Annotations in COCO's key-point format: people, their skeletons, segments and detected boxes."""
