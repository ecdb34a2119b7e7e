"""A node's server that can be struck at its named steps: `coordl.peers.server` in all else."""

from __future__ import annotations

import sys
from pathlib import Path

import chaos_strikes

from coordl.peers import server

if __name__ == "__main__":
    chaos_strikes.arm(Path(sys.argv.pop(1)))
    server.main()
