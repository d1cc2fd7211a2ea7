#!/usr/bin/env bash
# Installs what the build needs and is missing. Asks nothing, says what it does, does nothing where all is there.
# On systems without apt-get it only says what it expects to find.
#
# LibTorch is looked up in the order of cmake/FindLibTorch.cmake: CMAKE_PREFIX_PATH or Torch_DIR, the package `torch`
# of python3, and where there is neither, Debian's libtorch-dev, which this script installs.
set -euo pipefail

packages=(g++ cmake ninja-build ccache nlohmann-json3-dev libcli11-dev libspdlog-dev libgtest-dev libbenchmark-dev
          libdeflate-dev libgmp-dev libre2-dev libxxhash-dev zlib1g-dev)
if [ -n "${CMAKE_PREFIX_PATH:-}${Torch_DIR:-}" ]; then
  libtorch="the one that CMAKE_PREFIX_PATH or Torch_DIR names"
elif command -v python3 >/dev/null && python3 -c 'import torch' 2>/dev/null; then
  libtorch="the package torch of python3"
else
  libtorch="Debian's libtorch-dev"
  packages+=(libtorch-dev)
fi

if ! command -v apt-get >/dev/null; then
  echo "setup: no apt-get here; expecting these (by Debian's names) to be installed: ${packages[*]}"
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] && continue
  case $package in  # a newer one from elsewhere will do
    cmake | ccache) command -v "$package" >/dev/null && continue ;;
    ninja-build) command -v ninja >/dev/null && continue ;;
  esac
  missing+=("$package")
done

if [ ${#missing[@]} -eq 0 ]; then
  echo "setup: nothing to install; LibTorch: $libtorch"
  exit 0
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
  else
    echo "setup: these are missing, and installing them needs root: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi
echo "setup: installing ${missing[*]}; LibTorch: $libtorch"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${as_root[@]}" apt-get update -q && "${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"; } \
    >"$log" 2>&1 </dev/null; then
  tail -n 20 "$log" >&2
  echo "setup: the installation failed; its last lines are above" >&2
  exit 1
fi
echo "setup: done"
