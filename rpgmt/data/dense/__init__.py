"""Dense labels, one for each pixel: label maps, NYUv2, Cityscapes, and folders of one's own."""
