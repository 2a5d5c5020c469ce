#!/bin/bash
# The films, packed by 16 machines: sbatch pack.sh
#SBATCH --job-name=ark-pack
#SBATCH --array=1-16
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00

STORE=${STORE:-/shared/stores}

srun ark data pack --plugins ark-chexpert ark-mimic --recipe ark6 --store "$STORE" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
