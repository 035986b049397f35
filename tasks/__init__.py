"""Training tasks: what a task is, one file each, with `Config` and `build(config)`. `tools/train.py` lists this folder."""
