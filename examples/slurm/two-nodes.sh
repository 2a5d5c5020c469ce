#!/bin/bash
# Two machines with 8 GPUs each: sbatch two-nodes.sh
#SBATCH --job-name=ark
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append

STORE=${STORE:-/shared/stores}
OUT=${OUT:-/shared/runs/ark6}

# How long torchrun waits, once told to stop, for a checkpoint; 30 seconds if it is not said.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=540
begun=$(mktemp)
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 --max-restarts 0 \
    --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "$SLURM_JOB_ID" \
    --no-python ark train --plugins ark-chexpert ark-mimic --recipe ark6 \
    --store "$STORE" --out "$OUT"
code=$?

# torchrun has a code of its own; the run's folder knows whether it was stopped, and saved.
if [ "$OUT/run.json" -nt "$begun" ] && grep -q '"status": "interrupted"' "$OUT/run.json"; then
    scontrol requeue "$SLURM_JOB_ID"
fi
rm -f "$begun"
exit "$code"
