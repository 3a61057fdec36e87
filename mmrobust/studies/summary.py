"""The summary of a study: means and spreads over training seeds, paired contrasts, costs; its tables for a paper."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mmrobust.cases import CONCAT
from mmrobust.report import latex
from mmrobust.report.costs import ReportedCost, costs_markdown, training_costs
from mmrobust.report.numbers import METRIC_NAMES, UNKNOWN, Scale, interval, scale_of
from mmrobust.report.section import Section
from mmrobust.scenarios.scenario import Scenario
from mmrobust.scoring.metrics import SKIP, ZERO
from mmrobust.scoring.robustness import curves, summarise
from mmrobust.storage.files import atomic_file
from mmrobust.storage.results import read_results
from mmrobust.studies.jobs import TEACHER, Job, results_of
from mmrobust.studies.study import Contrast, Study

TABLE_FILE, REPORT_FILE, LATEX_FILE = "study.parquet", "study.md", "study.tex"
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


def figures(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`tidy` or :func:`contrasts` that a reader wants first; a column ``figure`` says what each is.

    That is the value on complete data, and for each scenario and prompting AUC-η, or of a grid with a single missing
    rate the value there.
    """
    rate, several = rows["missing_rate"], rows["missing_rate"].nunique() > 1
    unknown = (rows["prompting"] == CONCAT) & (rows["prompting"].nunique() > 1)
    scenario, shown = rows["scenario"].astype(str), rate.isna() if several else rate.notna()
    complete = (rate == 0) & (scenario == scenario.iloc[0]) & ~unknown & several
    told, untold = rows.assign(figure=scenario), rows.assign(figure=scenario + f", {CONCAT}")
    return pd.concat([rows[complete].assign(figure="complete"), told[shown & ~unknown], untold[shown & unknown]])


def write_report(study: Study, jobs: Sequence[Job], out: Path, title: str) -> str:
    """Write ``study.parquet``, ``study.md`` and ``study.tex`` of finished jobs.

    ``study.tex`` holds the tables of values: of a study with ``availability`` those of each training under what it was
    trained under, as the papers print them, and otherwise the overview and those of every scenario.

    Returns:
        The Markdown, without the tables of every scenario.
    """
    table = tidy(jobs, out)
    with atomic_file(out / TABLE_FILE) as partial:
        table.to_parquet(partial, index=False)
    absent = ""
    if study.evaluate.f1_absent != ZERO:
        absent = f"Macro F1 leaves out classes that neither occur nor are predicted (`f1_absent: {SKIP}`)."
    parts = [f"# {study.about or title}\n", *(f"{remark}\n" for remark in (study.mark, absent) if remark)]
    metrics = headlines(jobs, out)
    values = list(_as_trained(table, jobs, out, metrics)) if study.availability else _overviews(table, metrics)
    parts += map(_markdown, values)
    parts += map(_markdown, _differences(table, study.contrast, metrics))
    parts += _costs(jobs, out, metrics)
    by_scenario = [
        _matrix(f"{dataset}: {scenario}, {prompting} prompting", rows, metrics[str(dataset)])
        for (dataset, scenario, prompting), rows in table.groupby(["dataset", *CELL], sort=False, observed=True)
    ]
    with atomic_file(out / LATEX_FILE) as partial:
        shown = values if study.availability else [*values, *by_scenario]
        tables = (_for_a_paper(section, study.mark, absent) for section in shown)
        partial.write_text(latex.render_sections(tables), encoding="utf-8")
    with atomic_file(out / REPORT_FILE) as partial:
        partial.write_text("\n".join([*parts, *map(_markdown, by_scenario)]), encoding="utf-8")
    return "\n".join(parts)


def headlines(jobs: Iterable[Job], out: Path) -> dict[str, str]:
    """Data set → its headline metric."""
    first: dict[str, Job] = {}
    for job in jobs:
        first.setdefault(job.dataset, job)
    return {dataset: read_results(results_of(out, job)).headline_metric for dataset, job in first.items()}


def _matrix(title: str, rows: pd.DataFrame, metric: str) -> Section:
    """Variants × missing rates, shares in %: mean ± standard deviation over training seeds."""
    rates = [*sorted(rate for rate in rows["missing_rate"].unique() if not math.isnan(rate)), math.nan]
    cells = []
    for variant, group in rows.groupby(["method", "head", "under"], sort=False, observed=True):
        at = {
            rate: group["missing_rate"].isna() if math.isnan(rate) else group["missing_rate"] == rate for rate in rates
        }
        cells.append((*map(str, variant), *(_mean(group.loc[at[rate], "value"], scale_of(metric)) for rate in rates)))
    columns = ("method", "head", "trained under", *(f"{rate:g}" for rate in rates[:-1]), AUC)
    note = f"{_what(metric)}, {_spread(rows)}."
    return Section("study", title, note, columns, 3, tuple(cells), rows, metric=metric)


def _overviews(table: pd.DataFrame, metrics: Mapping[str, str]) -> list[Section]:
    """Per data set, variants × complete data and AUC-η under each scenario: mean ± standard deviation over seeds."""
    sections = []
    for dataset, rows in table.groupby("dataset", sort=False, observed=True):
        metric, found = metrics[str(dataset)], figures(rows)
        names = list(dict.fromkeys(found["figure"]))
        cells = []
        for variant, group in found.groupby(["method", "head", "under"], sort=False, observed=True):
            each = (_mean(group.loc[group["figure"] == name, "value"], scale_of(metric)) for name in names)
            cells.append((*map(str, variant), *each))
        note = f"{_what(metric)}, {_spread(rows)}{_of_curves(rows)}."
        columns = ("method", "head", "trained under", *names)
        sections.append(Section("study", str(dataset), note, columns, 3, tuple(cells), found, metric=metric))
    return sections


def _differences(table: pd.DataFrame, pairs: Sequence[Contrast], metrics: Mapping[str, str]) -> Iterator[Section]:
    """Per data set, the contrasts of what the overview shows; what excludes 0 is bold."""
    for dataset, rows in table.groupby("dataset", sort=False, observed=True):
        metric, cells = metrics[str(dataset)], []
        number = scale_of(metric).difference
        names = list(dict.fromkeys(figures(rows)["figure"]))
        for pair in pairs:
            other = "head" if pair.axis == "method" else "method"
            found = contrasts(rows, pair)
            for variant, group in figures(found).groupby([other, "under"], sort=False, observed=True):
                at = {each["figure"]: each for each in group.to_dict("records")}
                values = (_difference(at[name], number) if name in at else UNKNOWN for name in names)
                cells.append((f"{pair.of} − {pair.against}", *map(str, variant), *values))
        if cells:
            what = f"{'Points of ' * scale_of(metric).is_share}{METRIC_NAMES.get(metric, metric)}{_of_curves(rows)}."
            note = f"{what} Paired by training seed, with 95 % t intervals over seeds; bold: 0 lies outside."
            if rows["train_seed"].nunique() == 1:
                note = f"{what} Of one training seed, so without intervals."
            columns = ("difference", "of", "trained under", *names)
            yield Section("study", f"{dataset}: differences", note, columns, 3, tuple(cells), rows)


def _difference(row: Mapping[Any, Any], number: Callable[[float], str]) -> str:
    if math.isnan(row["low"]):
        return number(row["difference"])
    text = f"{number(row['difference'])} {interval(row['low'], row['high'], number)}"
    return f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text


def _what(metric: str) -> str:
    return f"{METRIC_NAMES.get(metric, metric)}{scale_of(metric).of}"


def _spread(rows: pd.DataFrame) -> str:
    """What the cells hold, of several training seeds or of one."""
    return "mean ± standard deviation over training seeds" if rows["train_seed"].nunique() > 1 else "one training seed"


def _of_curves(rows: pd.DataFrame) -> str:
    """What the columns of a scenario hold."""
    rates = sorted(rows["missing_rate"].dropna().unique())
    if len(rates) < 2:
        return f", at the missing rate {rates[0]:g}"
    return f"; under a scenario the mean height of the curve from {rates[0]:g} to {rates[-1]:g} (AUC-η)"


def _as_trained(table: pd.DataFrame, jobs: Sequence[Job], out: Path, metrics: Mapping[str, str]) -> Iterator[Section]:
    """Per data set and prompting, methods and heads × what they were trained under, evaluated under the same."""
    modalities = {}
    for job in jobs:
        if job.dataset not in modalities:
            about = read_results(results_of(out, job)).provenance["checkpoints"][job.name]
            modalities[job.dataset] = sorted(about["modalities"])
    rate = table["missing_rate"].map("{:g}".format)
    same = table[table["under"] == table["scenario"].astype(str) + " " + rate]
    for (dataset, prompting), rows in same.groupby(["dataset", "prompting"], sort=False, observed=True):
        names, metric = modalities[str(dataset)], metrics[str(dataset)]
        under = list(dict.fromkeys(zip(rows["under"], rows["scenario"], rows["missing_rate"], strict=True)))
        columns = [f"{name} ({availability(scenario, eta, names)})" for name, scenario, eta in under]
        cells = []
        for variant, group in rows.groupby(["method", "head"], sort=False, observed=True):
            values = (group.loc[group["under"] == name, "value"] for name, _, _ in under)
            cells.append((*map(str, variant), *(_mean(each, scale_of(metric)) for each in values)))
        title = f"{dataset}: evaluated as trained, {prompting} prompting"
        note = f"{_what(metric)}, {_spread(rows)}. In brackets: {'/'.join(names)} available, in %."
        yield Section("study", title, note, ("method", "head", *columns), 2, tuple(cells), rows, metric=metric)


def _markdown(section: Section) -> str:
    rules = ["---"] * section.labels + ["---:"] * (len(section.columns) - section.labels)
    lines = [f"| {' | '.join(row)} |" for row in (section.columns, rules, *section.rows)]
    note = f"{section.note}\n\n" if section.note else ""
    return f"## {section.title}\n\n{note}" + "\n".join(lines) + "\n"


def _for_a_paper(section: Section, mark: str, absent: str) -> Section:
    """The table with what is available alone above its columns; its caption says what a reader must know to cite it.

    That is the ``mark`` of a rehearsal, and how classes that are ``absent`` count in macro F1.
    """
    columns = tuple(re.sub(r".* \((.*)\)", r"\1", column) for column in section.columns)
    remarks = (mark and f"{mark}.", section.note, absent if section.metric == "macro_f1" else "")
    note = " ".join(filter(None, remarks)).replace("In brackets", "Columns")
    return dataclasses.replace(section, columns=columns, note=note)


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


def _mean(values: pd.Series[float], scale: Scale) -> str:
    if not len(values):
        return "–"
    spread = f" ± {scale.amount(values.std(ddof=1))}" if len(values) > 1 else ""
    return f"{scale.amount(values.mean())}{spread}"


def _costs(jobs: Sequence[Job], out: Path, metrics: Mapping[str, str]) -> list[str]:
    """The efficiency table of each data set: means over seeds."""
    seen: dict[str, dict[str, list[ReportedCost]]] = {}
    for job in sorted(jobs, key=lambda job: job.method.startswith(TEACHER)):  # teachers last
        checkpoints = read_results(results_of(out, job)).provenance["checkpoints"]
        under = "" if job.complete else f" {job.trained_under}"
        for cost in training_costs({f"{job.method} {job.head}{under}": checkpoints[job.name]}):
            seen.setdefault(job.dataset, {}).setdefault(cost.name, []).append(cost)
    tables = {dataset: [_mean_cost(costs) for costs in named.values()] for dataset, named in seen.items()}
    return [
        f"## {dataset}: what the trainings cost\n\n{costs_markdown(costs, metrics[dataset])}"
        for dataset, costs in tables.items()
    ]


def _mean_cost(costs: Sequence[ReportedCost]) -> ReportedCost:
    measured = ("peak_memory", "seconds_per_epoch", "cache_seconds", "energy_joules", "validation")
    means: dict[str, float | None] = {}
    for name in measured:
        values = [getattr(cost, name) for cost in costs]
        means[name] = None if None in values else sum(values) / len(values)
    return dataclasses.replace(costs[0], **means)  # type: ignore[arg-type]  # each has its field's type
