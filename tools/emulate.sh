#!/bin/sh
# Runs the native tests of the vector kernels of every instruction set on any CPU: AVX-512, AVX2 and
# NEON in plain C++ from SIMDe (Debian: libsimde-dev), under AddressSanitizer.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build="$root/build/emulate"
cmake -S "$root/native" -B "$build" -DCOORDL_PYTHON=OFF -DCOORDL_EMULATE=ON \
    -DCOORDL_SANITIZE=address -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$build" -j "${JOBS:-2}" --target core_tests
ASAN_OPTIONS=detect_leaks=1:halt_on_error=1 "$build/core_tests" "${@:-plain}"
