#!/bin/sh
# Runs fuzz targets, 60 seconds each or as long as asked, on top of the corpus of earlier runs:
#   fuzz/run.sh [SECONDS] [NAME...]        (all targets when none is named; build them first: cmake --build --preset asan)
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -eq 0 ] || shift
if [ $# -eq 0 ]; then
  set -- $(sed -n 's/^mneme_fuzz(\([a-z_]*\) .*/\1/p' fuzz/CMakeLists.txt)
fi
for name in "$@"; do
  corpus=build/asan/corpus/$name
  mkdir -p "$corpus"
  [ ! -d "fuzz/regressions/$name" ] || cp "fuzz/regressions/$name"/* "$corpus"/
  echo "fuzzing $name for $seconds s"
  build/asan/fuzz/fuzz_"$name" -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=20 -print_final_stats=1 \
    -artifact_prefix="build/asan/$name-" "$corpus" 2>&1 | grep -E 'ERROR|SUMMARY|stat::number_of_executed_units|stat::average_exec'
done
