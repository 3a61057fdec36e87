#!/usr/bin/env bash
# One evaluation shared by the tasks of a Slurm array: each predicts its part into the same folder, and the last one
# to finish writes the table. If a task dies, submit it again (sbatch --array=3 …): finished predictions are kept.
#
#   CHECKPOINT=runs/mmp DATA=data/mmimdb OUT=runs/grid sbatch examples/slurm_array.sh
#
# All tasks must agree on the parts: the array must run from 1 to N without gaps.

#SBATCH --job-name=mmrobust
#SBATCH --array=1-8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
#SBATCH --output=mmrobust-%A-%a.log

set -euo pipefail

mmrobust eval "$CHECKPOINT" --data "$DATA" --out "$OUT" \
  --shard "$SLURM_ARRAY_TASK_ID/${SHARDS:-$SLURM_ARRAY_TASK_COUNT}"
