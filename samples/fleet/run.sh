#!/bin/bash
# Divide a manifest between machines that ssh reaches, and merge their runs here:
#   bash run.sh m.csv host1 host2 host3
# Each machine has bulkimg, and a profile with endpoint and credentials. The same command again resumes what was
# interrupted, and skips the shards that are finished.
set -euo pipefail

if (($# < 2)); then
  echo "usage: run.sh MANIFEST HOST..." >&2
  exit 2
fi
manifest=$1
shift
hosts=("$@")
count=${#hosts[@]}

shard() {
  local at=$1 host=$2 name="relabel-$1-of-$count"
  scp -q "$manifest" "$host:relabel.csv"
  # 7 is also the answer of a run that is finished; the merge refuses one that is not.
  # shellcheck disable=SC2029  # expanded here, as it should be
  ssh "$host" "bulkimg run relabel.csv --yes --shard $at/$count --run-id relabel --rate 50/s -q" || true
  scp -qr "$host:runs/$name" runs/
}

mkdir -p runs
for at in "${!hosts[@]}"; do
  rm -rf "runs/relabel-$((at + 1))-of-$count"
  shard "$((at + 1))" "${hosts[at]}" &
done
wait
bulkimg merge runs/relabel-*-of-"$count" --run-id relabel
