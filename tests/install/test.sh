#!/usr/bin/env bash
# tests/install/test.sh BUILD: installs the build tree BUILD into a temporary prefix, moves it, builds the consumer
# project against it and runs it and the installed program.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/first" >"$work/install.log"
mv "$work/first" "$work/prefix"
test -f "$work/prefix/share/man/man1/ckpt.1"
version=$("$work/prefix/bin/ckpt" --version)
case $version in *"ckpt "[0-9]*) ;; *) echo "unexpected version: $version"; exit 1 ;; esac

generator=()
if command -v ninja >/dev/null; then generator=(-G Ninja); fi
cmake "${generator[@]}" -S "$here" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$work/prefix" >"$work/configure.log" ||
  { cat "$work/configure.log"; exit 1; }
cmake --build "$work/build"
"$work/build/consumer" "$work/run"
"$work/prefix/bin/ckpt" verify "$work/run"
"$work/prefix/bin/ckpt" load "$work/run" --part model --out "$work/model.pt"
echo "install test passed"
