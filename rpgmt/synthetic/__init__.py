"""People that the project draws itself: bodies in random poses, ray-cast into images with all labels.

`poses` and `body` make somebody, `scene` puts people and things before a camera, `render` makes image and labels from it by
`raycast`; `parallel` does so for many, `cache` keeps them, `labels` makes data sets of them, `files` writes them for others.
A new label is a field of `render.Scene`, a line in `cache`, `files` and `labels`, and touches nothing else.
"""
