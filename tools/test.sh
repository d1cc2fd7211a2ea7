#!/usr/bin/env bash
# tools/test.sh [--build DIR] [CMake options]: sets up, builds everything, and runs all tests with CTest.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/release
if [ "${1:-}" = --build ]; then
  build=$2
  shift 2
fi
tools/setup.sh
cmake --preset release -B "$build" -DCKPT_BUILD_TESTS=ON -DCKPT_BUILD_TOOLS=ON -DCKPT_BUILD_BENCH=ON "$@"
cmake --build "$build"
ctest --test-dir "$build" --output-on-failure --parallel "$(nproc)"
