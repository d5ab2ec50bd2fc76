#!/bin/bash
# One run whose rows are sent by machines that ssh reaches, each with a worker:
#   bash dask-ssh.sh m.csv host1 host2 host3
# All machines have bulkimg with its extra dask in the same version, Dask's certificates in ~/.config/dask
# (docs/how-to/cluster.md), and a profile with endpoint and credentials. They reach this machine by its name.
# The same command again resumes what was interrupted.
set -euo pipefail

if (($# < 2)); then
  echo "usage: dask-ssh.sh MANIFEST HOST..." >&2
  exit 2
fi
manifest=$1
shift
here=$(hostname -f)
scheduler="tls://$here:8786"

workers=()
# Workers end first: without a scheduler they would wait for it.
trap 'kill "${workers[@]}"; wait "${workers[@]}" || true; kill "$scheduler_process"' EXIT
dask scheduler --host "$here" --port 8786 --protocol tls --no-dashboard &
scheduler_process=$!
for host in "$@"; do
  # -tt: the worker ends with this connection.
  # shellcheck disable=SC2029  # expanded here, as it should be
  ssh -tt "$host" "dask worker $scheduler --nthreads 1 --no-dashboard --death-timeout 60" </dev/null &
  workers+=($!)
done
# Port 8790 is the desk's, which the workers reach.
bulkimg run "$manifest" --yes --cluster "$scheduler" --desk "$here:8790" --run-id relabel --rate 50/s
