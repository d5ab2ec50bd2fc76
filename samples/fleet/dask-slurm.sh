#!/bin/bash
# One run of m.csv with four workers, as one Slurm job: sbatch dask-slurm.sh
# The first node has the scheduler and the desk, whose ledger is in the directory that sbatch was called in.
# Dask's certificates are in ~/.config/dask (docs/how-to/cluster.md), endpoint and credentials come from a profile in
# ~/.config/bulkimg/config.toml; all nodes see both.
#SBATCH --job-name=relabel
#SBATCH --output=relabel-%j.log
#SBATCH --open-mode=append
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=512M
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail

file=$PWD/scheduler-$SLURM_JOB_ID.json
# Workers end first: without a scheduler they would wait for it.
trap 'kill "$workers"; wait "$workers" || true; kill "$scheduler"; rm -f "$file"' EXIT
trap 'kill -TERM "$desk"' TERM

dask scheduler --port 0 --protocol tls --scheduler-file "$file" --no-dashboard &
scheduler=$!
srun dask worker --scheduler-file "$file" --nthreads 1 --no-dashboard --death-timeout 60 &
workers=$!
until [[ -s $file ]]; do sleep 1; done

# The same job again (scontrol requeue) resumes its run.
bulkimg run m.csv --yes --cluster "$file" --run-id relabel --rate 50/s &
desk=$!
while kill -0 "$desk" 2>/dev/null; do wait "$desk" && code=0 || code=$?; done
exit "$code"
