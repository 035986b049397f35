"""Data sets: COCO-format key points, the synthetic people that the project draws itself, and their crops."""
