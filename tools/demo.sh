#!/usr/bin/env bash
# tools/demo.sh: sets up, builds, and shows what ckpt is for: a training run is killed in the middle, started again with
# the same command line, and ends with the very bits of a run that nobody killed.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

tools/setup.sh
say "Building (the first time takes some minutes)"
configured=$(cmake --preset release 2>&1) || { echo "$configured"; exit 1; }
sed -n 's/^-- ckpt: /with /p' <<<"$configured"
cmake --build build/release --target ckpt_program train_digits

runs=build/demo
epochs=20
rm -rf "$runs"
mkdir -p "$runs"
train() { build/release/train_digits --run "$1" --epochs "$epochs" --seed 1; }
final_of() { sed -n 's/^final //p' "$1"; }

say "1. A run that nobody kills"
train "$runs/undisturbed" | tee "$runs/undisturbed.log"

say "2. The same run, killed with SIGKILL in the middle"
build/release/train_digits --run "$runs/killed" --epochs "$epochs" --seed 1 >"$runs/killed.log" &
trainer=$!
shown=0
show() {  # the trainer's new lines; the last may be half written when it is killed
  local lines
  lines=$(wc -l <"$runs/killed.log")
  [ "$lines" -le "$shown" ] || sed -n "$((shown + 1)),${lines}p" "$runs/killed.log"
  shown=$lines
}
while kill -0 "$trainer" 2>/dev/null && [ "$shown" -lt $((epochs / 2)) ]; do
  sleep 0.05
  show
done
sleep 0.1  # into the next epoch
if ! kill -9 "$trainer" 2>/dev/null; then
  echo "the trainer ended before it could be killed"
  exit 1
fi
wait "$trainer" 2>/dev/null || true
show
echo "killed"

say "3. Started again with the same command line"
train "$runs/killed" | tee "$runs/resumed.log"
grep -q '^resumed at iteration' "$runs/resumed.log" || { echo "it did not resume"; exit 1; }

say "4. The same bits?"
undisturbed=$(final_of "$runs/undisturbed.log")
resumed=$(final_of "$runs/resumed.log")
echo "undisturbed        $undisturbed"
echo "killed and resumed $resumed"
if [ -z "$undisturbed" ] || [ "$undisturbed" != "$resumed" ]; then
  echo "They differ."
  exit 1
fi
echo "Weights, EMA, optimizer state and metrics are bit for bit the same."

say "5. What is on the disk"
echo "\$ ckpt list $runs/killed"
build/release/ckpt list "$runs/killed"
echo
echo "\$ ckpt verify $runs/killed"
build/release/ckpt verify "$runs/killed"

say "6. The mean of the three best, made again by the program"
average="ckpt average $runs/killed --best 3 -o $runs/best3.safetensors"
echo "\$ $average"
build/release/$average
echo "\$ ckpt diff $runs/best3.safetensors $runs/undisturbed/best3.safetensors"
build/release/ckpt diff "$runs/best3.safetensors" "$runs/undisturbed/best3.safetensors"
