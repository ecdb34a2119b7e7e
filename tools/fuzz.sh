#!/bin/sh
# Builds the fuzzers under AddressSanitizer + UndefinedBehaviorSanitizer and runs each for SECONDS; the
# inputs that break a rule lie in build/fuzz/crashes. Any finding ends it with a non-zero status.
#   SECONDS=60 tools/fuzz.sh jpeg packed     CXX=clang++ tools/fuzz.sh     SEED=7 tools/fuzz.sh
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build="$root/build/fuzz"
seconds=${SECONDS:-600}
seed=${SEED:-$(date +%s)}
fuzzers=${*:-jpeg packed indexed resize arena}
cmake -S "$root/native" -B "$build" -DCOORDL_PYTHON=OFF -DCOORDL_FUZZ=ON \
    -DCOORDL_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$build" -j "${JOBS:-2}"
failed=0
for fuzzer in $fuzzers; do
    ASAN_OPTIONS=detect_leaks=1:halt_on_error=1:allocator_may_return_null=1 \
        UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        "$build/${fuzzer}_fuzz" "seconds=$seconds" "seed=$seed" "crashes=$build/crashes" \
        "corpus=$root/tests/data" || failed=1
done
exit $failed
