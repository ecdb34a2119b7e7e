#!/usr/bin/env bash
# The tests. Most wait much and do not mind company: as many at a time as there are cores, at most
# four. Those marked "alone" have the machine for themselves. With arguments: pytest with those.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
[ $# = 0 ] || exec "$python" -m pytest "$@"
cores=$(nproc)
failed=0
together=(-n $((cores < 4 ? cores : 4)) -m "not slow and not alone")
"$python" -m pytest "${together[@]}" --dist loadfile tests/coordl || failed=$?
"$python" -m pytest "${together[@]}" --dist worksteal tests --ignore tests/coordl || failed=$?
"$python" -m pytest -m "alone and not slow" || failed=$?
exit "$failed"
