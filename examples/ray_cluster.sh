#!/usr/bin/env bash
# One evaluation on a Ray cluster: a copy of the model on each GPU (or core) of every node, workers that die replaced.
# Needs the extra `ray` on every node, and checkpoint and data at the same paths everywhere.
#
# On the first node:      ray start --head --port 6379
# On each other node:     ray start --address FIRST:6379
# Then, on any node:      CHECKPOINT=checkpoints/mmp DATA=data/digits OUT=results/ray bash examples/ray_cluster.sh
#
# Without RAY_ADDRESS (auto: the cluster that this node is part of), a local cluster is started. If killed, the same
# command continues; the table is that of a run without Ray, to the last digit on the same kind of device.
set -euo pipefail

mmrobust eval "$CHECKPOINT" --data "$DATA" --out "$OUT" \
  --engine ray ${RAY_ADDRESS:+--ray-address "$RAY_ADDRESS"} ${RAY_WORKERS:+--ray-workers "$RAY_WORKERS"}
