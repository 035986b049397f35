"""People that the project draws itself: bodies in random poses, ray-cast into images with all labels."""
