"""What benchmarks/cache.py runs: one program for each contender, and the limits it runs under."""
