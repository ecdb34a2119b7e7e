#!/usr/bin/env bash
# The tests. coordl's wait much and do not mind company: as many at a time as there are cores, at most
# four. Those that measure have the machine for themselves. With arguments: pytest with those.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
[ $# = 0 ] || exec "$python" -m pytest "$@"
cores=$(nproc)
failed=0
"$python" -m pytest -n $((cores < 4 ? cores : 4)) --dist loadfile tests/coordl || failed=$?
"$python" -m pytest tests --ignore tests/coordl || failed=$?
exit "$failed"
