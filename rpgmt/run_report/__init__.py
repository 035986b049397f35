"""report.html: what a run was, in one page that needs nothing else."""
