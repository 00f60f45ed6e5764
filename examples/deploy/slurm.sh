#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A folder in 16 shards as a Slurm array: sbatch examples/deploy/slurm.sh MODEL IN OUT PROMPT
# A task that was requeued goes on where it was (--resume).
#SBATCH --array=1-16
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=48G
#SBATCH --requeue
#SBATCH --signal=INT@60
exec fluxkontext-batch -m "$1" -p "$4" -o "$3" --resume --shard "$SLURM_ARRAY_TASK_ID/16" --progress=lines "$2"
