"""Results as records of Every Eval Ever, the format that evaluation harnesses share.

The format is that of the EvalEval coalition's package ``every-eval-ever``, ``schemas/eval.schema.json``, and the layout
of folders that of its data store: ``DATASET/DEVELOPER/MODEL/UUID.json``, one file for each checkpoint of a results
table.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mmrobust.errors import unknown_name
from mmrobust.scoring.metrics import metric_settings
from mmrobust.scoring.store import IMPORTED
from mmrobust.storage.files import write_json
from mmrobust.storage.results import Results
from mmrobust.storage.tasks import RANGES, is_share, sign_of

SCHEMA_VERSION = "0.3.0"
UNKNOWN = "unknown"
METRICS = {
    "accuracy": ("accuracy", "Accuracy", "accuracy"),
    "macro_f1": ("f1_macro", "Macro F1", "f1"),
    "micro_f1": ("f1_micro", "Micro F1", "f1"),
    "weighted_f1": ("f1_weighted", "Weighted F1", "f1"),
    "samples_f1": ("f1_samples", "Samples F1", "f1"),
    "map": ("mmrobust.map", "Mean average precision", "average_precision"),
    "auroc": ("auroc", "AUROC", "auroc"),
    "mae": ("mae", "Mean absolute error", "mae"),
    "rmse": ("rmse", "Root mean squared error", "rmse"),
    "pearson": ("pearson", "Pearson's r", "pearson"),
}
"""Metric → its id, name and family in the format."""
INTERVAL = "over samples: Wilson's for shares, Student's on a scale of their own for numbers; jackknife, no resamples"


def write_records(results: Iterable[Results], out: Path, organization: str | None = None) -> list[Path]:
    """Write one record for each checkpoint of each results table, with every row that has a value.

    The name of a record's file follows from what it holds, so that writing the same results again replaces it.

    Args:
        results: the results.
        out: the folder; the records go into folders in it.
        organization: who made and evaluated the models; ``None``: not known.

    Returns:
        The files.

    Raises:
        UsageError: the results hold a metric that has no name in the format.
        OSError: the files cannot be written.
    """
    results, files = list(results), []
    for metric in sorted({metric for result in results for metric in result.frame["metric"]}):
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
    for result in results:
        for name, rows in result.frame.groupby("checkpoint", sort=True):
            record = _record(str(name), rows, result.provenance, organization)
            # A version 4 UUID, as the data store demands, but one that the same content gets again.
            digest = hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=16).digest()
            dataset, model = rows["dataset"].iloc[0], record["model_info"]["id"]
            file = out / _folder(dataset) / Path(*map(_folder, model.split("/", 1))) / f"{_uuid(digest)}.json"
            made = f"{time.time():.6f}"
            write_json(file, {"evaluation_id": f"{dataset}/{model}/{made}", "retrieved_timestamp": made, **record})
            files.append(file)
    return files


def _uuid(digest: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=digest, version=4)


def _folder(name: str) -> str:
    """``name`` as the name of a folder on any system."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(" .") or "_"


def _record(name: str, rows: pd.DataFrame, provenance: Mapping[str, Any], organization: str | None) -> dict[str, Any]:
    """Everything but when the record was made, which would give it another name each time."""
    described, dataset = provenance["checkpoints"][name], provenance["dataset"]
    git, versions = provenance.get("git") or {}, provenance.get("versions") or {}
    defined = rows[rows["value"].notna()]
    source = {
        "source_name": "mmrobust",
        "source_type": "evaluation_run",
        "source_organization_name": organization or UNKNOWN,
        "evaluator_relationship": "first_party" if organization else "other",
        "additional_details": _strings(
            command=provenance.get("command"),
            git_commit=git.get("commit"),
            git_dirty=git.get("dirty"),
            device=provenance.get("device"),
            dtype=provenance.get("dtype"),
            undefined_results=len(rows) - len(defined) or None,
        ),
    }
    training = described.get("training") or {}
    model = {
        "name": name,
        "id": f"{organization or UNKNOWN}/{name}",
        **({"developer": organization} if organization else {}),
        "additional_details": {
            "deployment_type": UNKNOWN if described.get("method") == IMPORTED else "self_deployed",
            "model_availability": UNKNOWN,
            **_strings(
                **{key: rows[key].iloc[0] or None for key in ("method", "head", "backbone")},
                **{key: described.get(key) or None for key in ("fingerprint", "backbone_fingerprint", "fill")},
                modalities=" + ".join(described.get("modalities") or ()) or None,
                trained_under=training.get("scenario"),
                trained_at_missing_rate=training.get("missing_rate"),
            ),
        },
    }
    finished = provenance.get("finished")
    return {
        "schema_version": SCHEMA_VERSION,
        **({"evaluation_timestamp": finished} if finished else {}),
        "source_metadata": source,
        "eval_library": {"name": "mmrobust", "version": versions.get("mmrobust", UNKNOWN)},
        "model_info": model,
        "evaluation_results": [_result(row, dataset, provenance) for row in defined.to_dict("records")],
    }


def _result(row: Mapping[Any, Any], dataset: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    scenario, rate, metric = row["scenario"], row["missing_rate"], row["metric"]
    cell = f"{scenario}/{rate:g}"
    identity, display, family = METRICS[metric]
    settings, (least, most) = metric_settings(provenance), RANGES[metric]
    unbounded = math.isinf(most)
    parameters: dict[str, Any] = {}
    if family == "f1":
        parameters["absent_classes"] = settings.f1_absent
        if dataset.get("task") == "multi-label":
            parameters["threshold"] = settings.threshold
    uncertainty: dict[str, Any] = {"num_samples": row["n"]}
    if pd.notna(row["ci_low"]) and pd.notna(row["ci_high"]):
        uncertainty["confidence_interval"] = {
            "lower": row["ci_low"],
            "upper": row["ci_high"],
            "confidence_level": 0.95,
            "method": "percentile bootstrap over samples" if provenance.get("schema_version") == 1 else INTERVAL,
        }
    return {
        "evaluation_result_id": f"{cell}/seed-{row['seed']}/{row['prompting']}/{metric}",
        "evaluation_name": f"{row['dataset']}/{cell}",
        "source_data": {
            "dataset_name": row["dataset"],
            "source_type": "other",
            "additional_details": _strings(split=row["split"], fingerprint=dataset.get("fingerprint")),
        },
        "metric_config": {
            "evaluation_description": f"{display} on {row['dataset']} ({row['split']}) where {scenario} affects "
            f"{100 * rate:g} % of the samples",
            "metric_id": identity,
            "metric_name": display,
            "metric_kind": family,
            "metric_unit": "proportion" if is_share(metric) else "unit of the labels" if unbounded else "correlation",
            **({"metric_parameters": parameters} if parameters else {}),
            "lower_is_better": sign_of(metric) < 0,
            "score_type": "continuous",
            "min_score": int(least),
            "max_score": "Infinity" if unbounded else int(most),
        },
        "score_details": {
            "score": row["value"],
            "details": _strings(
                **{key: row[key] for key in ("scenario", "seed", "prompting", "n_affected", "n_naturally_missing")},
                missing_rate=f"{rate:g}",
            ),
            "uncertainty": uncertainty,
        },
    }


def _strings(**values: Any) -> dict[str, str]:
    """The values as strings, which is all that the format takes as details, without those that are not known."""
    return {key: str(value) for key, value in values.items() if value is not None}
