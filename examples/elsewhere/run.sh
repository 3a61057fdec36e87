#!/usr/bin/env bash
# A model that runs elsewhere (model.py, without mmrobust or torch), evaluated and gated.
#
#   bash examples/elsewhere/run.sh
#
# Only the folder `plan` goes to the model, and only a CSV file comes back; the labels stay here.
set -euo pipefail
model="$(dirname "$0")/model.py"
about=(--data data --modalities audio,text)
scenarios=(--scenario "missing-audio,missing-text,noisy-audio:gaussian@3")

mmrobust data prepare digits --out data
mmrobust plan "${about[@]}" "${scenarios[@]}" --inputs --out plan

python "$model" plan > predictions.csv
mmrobust import predictions predictions.csv "${about[@]}" "${scenarios[@]}" --name keypad --out results/main
mmrobust report results/main

# A change to the model: it listens less. Is it worse? The last command ends with exit code 1.
python "$model" plan --hasty > hasty.csv
mmrobust import predictions hasty.csv "${about[@]}" "${scenarios[@]}" --name keypad --out results/hasty
mmrobust check results/hasty --baseline results/main --fail "accuracy:-0.02"
