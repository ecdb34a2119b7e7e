"""What runs inside the job under test: standard library and the job's own torch, nothing else."""
