#!/bin/sh
# The measurements of docs/results/ann.md: SPANN, HNSW, exact and faiss's IVF on generated vectors.
#   bench/ann.sh FOLDER [N]        FOLDER: on the disk to be measured, about 4 GB for N = 1000000
# faiss's index on disk runs in a memory control group of the size that the SPANN process has (cgroup v1 or v2, as root);
# without one it is skipped, since the page cache would hold its whole file.
set -eu
folder=$1
n=${2:-1000000}
build=${BUILD:-build/release}
mkdir -p "$folder"
out=$folder/results
mkdir -p "$out"
export OMP_WAIT_POLICY=PASSIVE

mneme() { "$build/mneme" bench ann --json "$@"; }

for shape in skewed isotropic cosine; do
  count=$n
  [ "$shape" = skewed ] || count=$((n / 5))
  echo "$shape, $count vectors" >&2
  mneme --shape "$shape" -n "$count" --index spann --folder "$folder/spann-$shape" --verify > "$out/$shape-spann.json"
  mneme --shape "$shape" -n "$count" --index hnsw --folder "$folder/hnsw-$shape" > "$out/$shape-hnsw.json"
  mneme --shape "$shape" -n "$count" --index exact > "$out/$shape-exact.json"
done

# faiss in as much memory as SPANN's process has.
limit=$(sed -n 's/.*"resident_bytes": \([0-9]*\).*/\1/p' "$out/skewed-spann.json" | head -1)
for method in sq4 pq64 ondisk; do
  "$build/bench/bench_ann_faiss" build "$folder" "$method" skewed "$n" 500 >&2
done
for method in sq4 pq64; do
  "$build/bench/bench_ann_faiss" query "$folder" "$method" > "$out/skewed-faiss-$method.json"
done
group=/sys/fs/cgroup/mneme-ann
setting=memory.max
if [ -d /sys/fs/cgroup/memory ]; then
  group=/sys/fs/cgroup/memory/mneme-ann
  setting=memory.limit_in_bytes
fi
if mkdir -p "$group" 2>/dev/null && echo "$limit" > "$group/$setting"; then
  sh -c 'echo $$ > "$1/cgroup.procs"; exec "$2" query "$3" ondisk' sh "$group" "$build/bench/bench_ann_faiss" "$folder" \
    > "$out/skewed-faiss-ondisk.json"
  rmdir "$group" 2>/dev/null || true
else
  echo "no control group: faiss on disk is skipped" >&2
fi

# A third of the vectors replaced: recall before is in skewed-spann.json.
cp -r "$folder/spann-skewed" "$folder/spann-churn"
mneme --shape skewed -n "$n" --index spann --folder "$folder/spann-churn" --churn 0.3 --verify > "$out/skewed-churn.json"
rm -r "$folder/spann-churn"

for shape in skewed isotropic cosine; do
  # shellcheck disable=SC2046  # one --draw a file
  "$build/mneme" bench ann --html "$out/$shape.html" $(for f in "$out/$shape"-*.json; do echo "--draw $f"; done)
done
echo "results are in $out" >&2
