"""What the built-in job can train: the workloads of Mohan et al. (VLDB 2021), table 1, by kind."""
