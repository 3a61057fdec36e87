"""Label leakage through fills: the fill of a missing modality, together with the case, must not reveal the label.

A fill of the sample's own size (as in MMP's release), a fill drawn from the sample's class, or data in which some
classes naturally miss a modality more often: each lets a model score from what is not there.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mmrobust.audit.subject import NOT_APPLICABLE, Check, Finding, Subject, judged
from mmrobust.cases import Case
from mmrobust.scenarios.draws import ScenarioDraw
from mmrobust.scenarios.scenario import Scenario
from mmrobust.scoring.metrics import target_matrix

CHANCE = 0.5
MARGIN = 0.05
SPREADS = 4.0
PROBED = 512
"""Samples that the probe is trained and tested on."""
FOLDS = 5
SHUFFLES = 20
CHUNKS = 16
SIGNATURE = 3 + 4 + CHUNKS
"""Length of a fill's summary: sizes, statistics, means of chunks."""

Floats = npt.NDArray[np.float64]


@partial(
    Check,
    "fill-leakage",
    "Does the fill of a missing modality, or which one is missing, reveal the label?",
    "If so, a score under missing modalities partly comes from what is not there. A decision tree that sees only fill "
    f"and case must be at chance: an AUROC of {CHANCE}, plus {MARGIN} or {SPREADS:g} spreads over shuffled labels.",
)
def fill_leakage(subject: Subject) -> Finding:
    """Train a probe on what the model is given in place of each modality, and on the labels shuffled."""
    split, modalities = subject.split, subject.modalities
    if len(modalities) == 1:
        return Finding(NOT_APPLICABLE, f"there is only one modality, {modalities[0]}, and it is never missing")
    natural = split.natural_cases(modalities)
    positions = np.sort(np.random.default_rng(subject.seed).permutation(len(split))[:PROBED])
    labels = [split.labels[position] for position in positions]
    if subject.numbers:  # whether a number is above the median is a class of its own
        values = np.asarray(labels, dtype=np.float64)
        targets = values > np.median(values)
    else:
        targets = target_matrix(labels, len(split.info.classes))
    draws = np.random.default_rng(subject.seed)
    orders = [draws.permutation(len(targets)) for _ in range(SHUFFLES)]
    found, limits = {}, {}
    for lost in modalities:
        scenario = Scenario.parse(f"missing-{lost}", modalities)
        cases = ScenarioDraw(split.ids, scenario, subject.seed, natural, split.traits).table(1.0)
        seen = np.stack([_seen(subject, int(position), cases[position]) for position in positions])
        found[scenario.name] = probe(seen, targets, subject.seed)
        by_chance = [probe(seen, targets[order], subject.seed) for order in orders]
        limits[scenario.name] = CHANCE + max(MARGIN, SPREADS * float(np.std(by_chance)))
    worst = max(found, key=lambda name: found[name] - limits[name])
    what = "the labels above the median from the others" if subject.numbers else "the classes apart"
    said = f"a probe of fill and case tells {what} with an AUROC of {found[worst]:.3f} under {worst}"
    details = {"auroc": found, "limits": limits, "samples": len(positions)}
    return judged(found[worst], limits[worst], f"{said} (chance {CHANCE})", details)


def _seen(subject: Subject, position: int, case_name: str) -> Floats:
    """Return what the probe sees of one sample: which modalities are missing, and a summary of their fills."""
    case = Case.parse(case_name, subject.modalities)
    fills = [
        _signature(subject.fill_of(position, m, case)) if case.is_missing(m) else np.zeros(SIGNATURE)
        for m in case.modalities
    ]
    return np.concatenate([*fills, [case.is_missing(m) for m in case.modalities]])


def _signature(fill: npt.NDArray[Any]) -> Floats:
    """Summarise an array of any shape by its sizes, its statistics and the means of chunks."""
    values = np.asarray(fill, dtype=np.float64).ravel()
    sizes = np.zeros(3)
    sizes[: fill.ndim] = fill.shape
    statistics = [values.mean(), values.std(), values.min(), values.max()]
    chunks = [chunk.mean() if chunk.size else 0.0 for chunk in np.array_split(values, CHUNKS)]
    return np.concatenate([sizes, statistics, chunks])


def probe(seen: Floats, targets: npt.NDArray[np.bool_], seed: int) -> float:
    """Return the cross-validated AUROC of a decision tree that predicts classes from ``seen``, over classes and folds.

    Args:
        seen: [N, F], features.
        targets: [N, C], whether the sample belongs to the class.
        seed: seed of the folds.

    Returns:
        0.5 if nothing can be learned; exactly 0.5 if all rows of ``seen`` are equal.
    """
    from sklearn.model_selection import KFold
    from sklearn.tree import DecisionTreeRegressor

    values = []
    folds = KFold(min(FOLDS, len(seen)), shuffle=True, random_state=seed)
    for fitted, held_out in folds.split(seen):
        tree: Any = DecisionTreeRegressor(max_leaf_nodes=64, min_samples_leaf=3, random_state=0)
        tree.fit(seen[fitted], targets[fitted].astype(np.float64))
        scores = np.asarray(tree.predict(seen[held_out])).reshape(len(held_out), -1)
        values.append(_auroc(scores, targets[held_out]))
    found = np.concatenate(values)
    return float(found.mean()) if found.size else CHANCE


def _auroc(scores: Floats, targets: npt.NDArray[np.bool_]) -> Floats:
    """Return the AUROC of each class that has members and non-members, from ranks; ties count half."""
    from scipy.stats import rankdata

    members = targets.sum(0)
    others = len(targets) - members
    both = (members > 0) & (others > 0)
    ranks = rankdata(scores, axis=0)
    wins = (ranks * targets).sum(0) - members * (members + 1) / 2
    return np.asarray(wins[both] / (members * others)[both], dtype=np.float64)
