#!/bin/bash
# The manifest m.csv in four shards, as a Slurm array, and a merge after it.
# Run it on the login node, in a directory that all nodes see: bash slurm.sh
# Endpoint and credentials come from a profile in ~/.config/bulkimg/config.toml.
#SBATCH --job-name=relabel
#SBATCH --output=relabel-%A-%a.log
#SBATCH --open-mode=append
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=256M
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail

if [[ -z ${SLURM_JOB_ID:-} ]]; then
  array=$(sbatch --parsable --array=1-4 "$0")
  # afterany: a shard with failed rows is merged too. The merge itself refuses shards that are not finished.
  sbatch --job-name=relabel-merge --mem=256M --dependency="afterany:${array%%;*}" \
    --wrap='bulkimg merge runs/relabel-*-of-4 --run-id relabel'
  exit
fi

# The same task again (scontrol requeue) resumes its run. To resume one from elsewhere: bulkimg resume relabel-3-of-4
exec bulkimg run m.csv --yes --shard auto/4 --run-id relabel --rate 50/s
