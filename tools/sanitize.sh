#!/bin/sh
# Builds the native tests under AddressSanitizer + UndefinedBehaviorSanitizer, then under
# ThreadSanitizer, and runs both. Any finding ends it with a non-zero status.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
jobs=${JOBS:-2}
for sanitizer in address,undefined thread; do
    build="$root/build/sanitize-$(echo "$sanitizer" | tr , -)"
    cmake -S "$root/native" -B "$build" -DCOORDL_PYTHON=OFF -DCOORDL_SANITIZE="$sanitizer" \
        -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
    cmake --build "$build" -j "$jobs"
    echo "== $sanitizer"
    ASAN_OPTIONS=detect_leaks=1:halt_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        TSAN_OPTIONS=halt_on_error=1:die_after_fork=0 "$build/core_tests" "$@"
done
