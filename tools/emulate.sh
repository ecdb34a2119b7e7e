#!/bin/sh
# Runs the native tests of the vector kernels of every instruction set on any CPU: AVX-512, AVX2 and
# NEON in plain C++ from SIMDe (Debian: libsimde-dev), under AddressSanitizer. Then the same tests as an
# AArch64 program, NEON as compilers make it, where the tools are at hand (Debian: g++-aarch64-linux-gnu,
# qemu-user-static).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build="$root/build/emulate"
cmake -S "$root/native" -B "$build" -DCOORDL_PYTHON=OFF -DCOORDL_EMULATE=ON \
    -DCOORDL_SANITIZE=address -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$build" -j "${JOBS:-2}" --target core_tests
ASAN_OPTIONS=detect_leaks=1:halt_on_error=1 "$build/core_tests" "${@:-plain}"

if command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64-static >/dev/null; then
    echo "== AArch64"
    (cd "$root/native" && aarch64-linux-gnu-g++ -std=c++20 -O2 -ffp-contract=off -static -I. \
        prep/kernels*.cpp prep/jpeg/huffman.cpp tests/kernels_test.cpp tests/jpeg_test.cpp \
        tests/main.cpp -o "$build/aarch64_tests")
    qemu-aarch64-static "$build/aarch64_tests"
else
    echo "== AArch64 left out: aarch64-linux-gnu-g++ or qemu-aarch64-static is not on PATH"
fi
