"""Data sets and the crops that networks are trained on.

Here is what all share: image files, affine maps, regions and their crops, random changes and numbers, batches, and the
catalog of the sets by name. `coco/` reads annotations in COCO's format, and skeletons; `sets/` has MPII, LSP, CrowdPose and
images with a class each; `dense/` label maps, NYUv2, Cityscapes and folders of one's own. The people that the project draws
itself are in `rpgmt.synthetic`.
"""
