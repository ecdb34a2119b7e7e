"""What benchmarks/prep.py measures: ours and every peer, one file each, behind one protocol.

registry     which variants there are, and in which environment each runs
worker       a process with one variant: loads the pictures once, prepares a round when told
link         the driver's end of a worker
rounds       interleaves the workers, one computing at a time
boxes        the crops, the same for all; pictures: the picture sets; table: the result as text
environment  .venv-peers, where the peers live; stubs: empty CUDA libraries beside CPU torch
"""
