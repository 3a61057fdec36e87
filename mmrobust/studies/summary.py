"""The summary of a study: means and spreads over training seeds, paired contrasts, and costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.report.costs import ReportedCost, costs_markdown, training_costs
from mmrobust.scenarios.scenario import Scenario
from mmrobust.scoring.metrics import SKIP, ZERO
from mmrobust.scoring.robustness import curves, summarise
from mmrobust.storage.files import atomic_file
from mmrobust.storage.results import read_results
from mmrobust.studies.jobs import TEACHER, Job, results_of
from mmrobust.studies.study import Contrast, Study

TABLE_FILE, REPORT_FILE = "study.parquet", "study.md"
VARIANT = ["dataset", "method", "head", "under"]
CELL = ["scenario", "prompting"]
AUC = "AUC-η"


def tidy(jobs: Iterable[Job], out: Path) -> pd.DataFrame:
    """The headline metric, one row per (job, scenario, prompting, missing rate).

    Columns: ``dataset``, ``method``, ``head``, ``under`` (what it was trained under), ``train_seed``, ``scenario``,
    ``prompting``, ``missing_rate`` and ``value``, the mean over mask seeds. Rows with the rate NaN hold AUC-η.
    """
    frames = []
    for job in jobs:
        results = read_results(results_of(out, job))
        frame = results.frame[results.frame["metric"] == results.headline_metric]
        values = curves(frame)[[*CELL, "missing_rate", "value"]]
        areas = summarise(frame)[[*CELL, "auc_eta"]].rename(columns={"auc_eta": "value"}).assign(missing_rate=math.nan)
        columns = {"dataset": job.dataset, "method": job.method, "head": job.head, "under": job.trained_under}
        frames.append(pd.concat([values, areas]).assign(**columns, train_seed=job.seed))
    return pd.concat(frames, ignore_index=True)[[*VARIANT, "train_seed", *CELL, "missing_rate", "value"]]


def contrasts(table: pd.DataFrame, contrast: Contrast) -> pd.DataFrame:
    """The paired difference of two variants in a table of :func:`tidy`, with a 95 % t interval over training seeds.

    Returns:
        One row per (data set, the other axis, training, scenario, prompting, rate): ``difference`` (mean), ``low``,
        ``high`` (NaN for one seed) and ``seeds``.
    """
    from scipy.special import stdtrit

    keys = [key for key in (*VARIANT, "train_seed", *CELL, "missing_rate") if key != contrast.axis]
    sides = [table[table[contrast.axis] == name].set_index(keys)["value"] for name in (contrast.of, contrast.against)]
    difference = (sides[0] - sides[1]).dropna().rename("difference").reset_index()
    groups = difference.groupby([key for key in keys if key != "train_seed"], dropna=False, sort=False, observed=True)[
        "difference"
    ]
    rows = groups.agg(["mean", "std", "count"]).reset_index().rename(columns={"mean": "difference", "count": "seeds"})
    count: npt.NDArray[np.int64] = rows["seeds"].to_numpy()
    half = stdtrit(np.maximum(count - 1, 1), 0.975) * rows["std"] / np.sqrt(count)
    return rows.assign(low=rows["difference"] - half, high=rows["difference"] + half).drop(columns="std")


def write_report(study: Study, jobs: Sequence[Job], out: Path, title: str) -> str:
    """Write ``study.parquet`` and ``study.md`` of finished jobs; returns the Markdown."""
    table = tidy(jobs, out)
    with atomic_file(out / TABLE_FILE) as partial:
        table.to_parquet(partial, index=False)
    parts = [f"# {study.about or title}\n"]
    if study.evaluate.f1_absent != ZERO:
        parts.append(f"Macro F1 leaves out classes that neither occur nor are predicted (`f1_absent: {SKIP}`).\n")
    if study.availability:
        parts += _as_trained(table, jobs, out)
    for (dataset, scenario, prompting), rows in table.groupby(["dataset", *CELL], sort=False, observed=True):
        parts.append(f"## {dataset}: {scenario}, {prompting} prompting\n\n{_matrix(rows)}")
    parts += [_contrast(contrasts(table, pair), pair) for pair in study.contrast]
    parts += _costs(jobs, out)
    text = "\n".join(parts)
    with atomic_file(out / REPORT_FILE) as partial:
        partial.write_text(text, encoding="utf-8")
    return text


def _matrix(rows: pd.DataFrame) -> str:
    """Variants × missing rates, in %: mean ± standard deviation over training seeds."""
    rates = sorted(rate for rate in rows["missing_rate"].unique() if not math.isnan(rate))
    lines = [f"| method | head | trained under | {' | '.join(f'{rate:g}' for rate in rates)} | {AUC} |"]
    lines.append(f"| --- | --- | --- |{' ---: |' * (len(rates) + 1)}")
    for variant, group in rows.groupby(["method", "head", "under"], sort=False, observed=True):
        cells = []
        for rate in (*rates, math.nan):
            same = group["missing_rate"].isna() if math.isnan(rate) else group["missing_rate"] == rate
            cells.append(_mean(group.loc[same, "value"]))
        lines.append(f"| {' | '.join([*map(str, variant), *cells])} |")
    return "\n".join(lines) + "\n"


def _as_trained(table: pd.DataFrame, jobs: Sequence[Job], out: Path) -> list[str]:
    """Per data set and prompting, methods and heads × what they were trained under, evaluated under the same."""
    modalities = {}
    for job in jobs:
        if job.dataset not in modalities:
            about = read_results(results_of(out, job)).provenance["checkpoints"][job.name]
            modalities[job.dataset] = sorted(about["modalities"])
    rate = table["missing_rate"].map("{:g}".format)
    same = table[table["under"] == table["scenario"].astype(str) + " " + rate]
    parts = []
    for (dataset, prompting), rows in same.groupby(["dataset", "prompting"], sort=False, observed=True):
        names = modalities[str(dataset)]
        under = list(dict.fromkeys(zip(rows["under"], rows["scenario"], rows["missing_rate"], strict=True)))
        columns = [f"{name} ({availability(scenario, eta, names)})" for name, scenario, eta in under]
        lines = [f"| method | head | {' | '.join(columns)} |", f"| --- | --- |{' ---: |' * len(columns)}"]
        for variant, group in rows.groupby(["method", "head"], sort=False, observed=True):
            cells = [_mean(group.loc[group["under"] == name, "value"]) for name, _, _ in under]
            lines.append(f"| {' | '.join([*map(str, variant), *cells])} |")
        parts.append(
            f"## {dataset}: evaluated as trained, {prompting} prompting\n\n"
            f"In brackets: {'/'.join(names)} available, in %.\n\n" + "\n".join(lines) + "\n"
        )
    return parts


def availability(scenario: str, rate: float, modalities: Sequence[str]) -> str:
    """How much of each modality a scenario leaves at a missing rate, in %, as DPL's tables name it.

    >>> availability("missing-both", 0.7, ("image", "text")), availability("missing-text", 0.7, ("image", "text"))
    ('65/65', '100/30')
    """
    drawn = Scenario.parse(scenario, modalities)
    if drawn.rates:
        rates = dict(drawn.rates)
        return "/".join(f"{100 * (1 - rates.get(modality, 0)):.3g}" for modality in modalities)
    cases = drawn.cases
    lost = [sum(case.is_missing(modality) for case in cases) / len(cases) for modality in modalities]
    return "/".join(f"{100 * (1 - rate * share):.3g}" for share in lost)


def _mean(values: pd.Series[float]) -> str:
    if not len(values):
        return "–"
    spread = f" ± {100 * values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"


def _contrast(rows: pd.DataFrame, contrast: Contrast) -> str:
    """The contrasts of AUC-η and of the lowest and highest rate, in points."""
    shown = rows[rows["missing_rate"].isna() | rows["missing_rate"].isin([0.0, rows["missing_rate"].max()])]
    other = "head" if contrast.axis == "method" else "method"
    lines = [
        f"## {contrast.of} minus {contrast.against}\n",
        "Points of the headline metric, paired by training seed; 95 % t interval over seeds.\n",
        f"| data | {other} | trained under | scenario | prompting | at | difference | interval | seeds |",
        "| --- | --- | --- | --- | --- | --- | ---: | --- | ---: |",
    ]
    for row in shown.to_dict("records"):
        at = AUC if math.isnan(row["missing_rate"]) else f"η = {row['missing_rate']:g}"
        interval = "–" if math.isnan(row["low"]) else f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
        about = (row["dataset"], row[other], row["under"], row["scenario"], row["prompting"], at)
        lines.append(f"| {' | '.join(about)} | {100 * row['difference']:+.1f} | {interval} | {row['seeds']} |")
    return "\n".join(lines) + "\n"


def _costs(jobs: Sequence[Job], out: Path) -> list[str]:
    """The efficiency table of each data set: means over seeds."""
    seen: dict[str, dict[str, list[ReportedCost]]] = {}
    for job in sorted(jobs, key=lambda job: job.method.startswith(TEACHER)):  # teachers last
        checkpoints = read_results(results_of(out, job)).provenance["checkpoints"]
        under = "" if job.complete else f" {job.trained_under}"
        for cost in training_costs({f"{job.method} {job.head}{under}": checkpoints[job.name]}):
            seen.setdefault(job.dataset, {}).setdefault(cost.name, []).append(cost)
    tables = {dataset: [_mean_cost(costs) for costs in named.values()] for dataset, named in seen.items()}
    return [f"## {dataset}: what the trainings cost\n\n{costs_markdown(costs)}" for dataset, costs in tables.items()]


def _mean_cost(costs: Sequence[ReportedCost]) -> ReportedCost:
    measured = ("peak_memory", "seconds_per_epoch", "cache_seconds", "energy_joules", "validation")
    means: dict[str, float | None] = {}
    for name in measured:
        values = [getattr(cost, name) for cost in costs]
        means[name] = None if None in values else sum(values) / len(values)
    return dataclasses.replace(costs[0], **means)  # type: ignore[arg-type]  # each has its field's type
