"""Data sets with a name and a format of their own: MPII, LSP, CrowdPose; images with a class each."""
