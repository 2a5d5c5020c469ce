#!/bin/bash
# One machine with 8 GPUs: sbatch one-node.sh
#SBATCH --job-name=ark
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append

STORE=${STORE:-/shared/stores}
OUT=${OUT:-/shared/runs/ark6}

# The same command begins a run and goes on with it.
srun ark train --plugins ark-chexpert ark-mimic --recipe ark6 \
    --store "$STORE" --out "$OUT" --gpus 8
code=$?

# 75: stopped before the time was up, and saved. The job goes back into the queue and goes on.
if [ "$code" -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
