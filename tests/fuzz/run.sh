#!/usr/bin/env bash
# run.sh SECONDS [TARGET...]: fuzzes each target (or the named ones) for this many seconds with libFuzzer. The first
# failure ends the run, and the input that caused it is kept. FUZZ_SEED=1 begins with the same inputs each time.
# Needs no nightly toolchain: the flags are those that cargo-fuzz sets, without a sanitizer, as the library has no
# unsafe code.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${1:?"usage: run.sh SECONDS [TARGET...]"}
shift
triple=$(rustc -vV | sed -n 's/^host: //p')
out=$PWD/target/fuzz

RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
RUSTFLAGS+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
RUSTFLAGS+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTFLAGS
cargo build --quiet --release --locked --manifest-path tests/fuzz/Cargo.toml --target "$triple" --target-dir "$out"

if [ $# = 0 ]; then
  # shellcheck disable=SC2046 # the names have no blanks
  set -- $(sed -n 's/^ *("\([a-z-]*\)", .*/\1/p' src/fuzz.rs)
fi
for target; do
  mkdir -p "$out/corpus/$target" "$out/found/$target"
  seeds=tests/fuzz/seeds/$target
  [ -d "$seeds" ] || seeds=
  log=$out/$target.log
  # libFuzzer writes new inputs to the first folder, and reads the seeds besides.
  if ! FUZZ_TARGET=$target "$out/$triple/release/fuzz" "$out/corpus/$target" $seeds -max_total_time="$seconds" \
    -seed="${FUZZ_SEED:-0}" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$out/found/$target/" >"$log" 2>&1; then
    tail -n 40 "$log"
    echo "fuzz: $target failed; the input is in target/fuzz/found/$target/"
    exit 1
  fi
  echo "fuzz: $target: $(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$log") inputs, nothing found"
done
