"""What trainings cost, side by side: Prompt the Missing's efficiency table, with ratios to full fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmrobust.report.escaping import pipes, plain

FULL = "full"
COLUMNS = ("trained", "memory", "s/epoch", "samples/s", "once", "energy", "validation")
_DASH = "–"


@dataclass(frozen=True)
class Cost:
    """What one training cost."""

    name: str
    method: str
    trained_parameters: int
    peak_memory: float | None
    """Bytes above the loaded model."""
    seconds_per_epoch: float
    samples_per_epoch: int
    cache_seconds: float
    """What it took to compute once what is frozen."""
    energy_joules: float | None
    validation: float | None
    """Headline metric of the best epoch."""
    setting: tuple[str, int]
    """Device and batch size: only trainings under the same are compared."""

    @property
    def seconds_per_sample(self) -> float:
        """Of a training step."""
        return self.seconds_per_epoch / self.samples_per_epoch


def costs(checkpoints: Mapping[str, Mapping[str, Any]]) -> list[Cost]:
    """The costs of those checkpoints that carry them.

    Args:
        checkpoints: name → ``method`` and ``training``, as the provenance of results has them.
    """
    found = []
    for name, facts in checkpoints.items():
        training = facts.get("training") or {}
        measured = training.get("efficiency")
        if measured:
            found.append(
                Cost(
                    name,
                    str(facts["method"]),
                    int(measured["trained_parameters"]),
                    measured.get("peak_memory"),
                    float(measured["seconds_per_epoch"]),
                    int(measured["samples_per_epoch"]),
                    float(measured["cache_seconds"]),
                    measured.get("energy_joules"),
                    training.get("validation"),
                    (str(measured["device"]), int(measured["batch_size"])),
                )
            )
    return found


def reference(found: Sequence[Cost]) -> Cost | None:
    """The full fine-tuning that the others are compared with: the one of the name ``full``, else the first."""
    full = [cost for cost in found if cost.method == FULL]
    return next((cost for cost in full if cost.name == FULL), full[0] if full else None)


def table(found: Sequence[Cost]) -> list[list[str]]:
    """Rows of text, the columns' names first; in brackets the share of full fine-tuning's, where it ran alike."""
    full = reference(found)
    rows = [["", *COLUMNS]]
    for cost in found:
        base = full if full is not None and full.setting == cost.setting else cost
        # Of speeds the ratio is that of the time for one sample.
        time, speed = cost.seconds_per_sample, _share(cost.seconds_per_sample, base.seconds_per_sample)
        rows.append(
            [
                cost.name,
                _number(cost.trained_parameters, base.trained_parameters),
                _number(cost.peak_memory, base.peak_memory, 2**20, " MiB"),
                _number(cost.seconds_per_epoch, base.seconds_per_epoch, 1, " s"),
                f"{1 / time:,.0f}{speed}" if time else _DASH,
                f"{cost.cache_seconds:.1f} s" if cost.cache_seconds else _DASH,
                _number(cost.energy_joules, base.energy_joules, 1, " J"),
                _DASH if cost.validation is None else f"{100 * cost.validation:.1f}",
            ]
        )
    return rows


def notes(found: Sequence[Cost]) -> str:
    """What the columns mean, in a sentence or two."""
    full = reference(found)
    said = (
        "trained: parameters; memory: peak above the loaded model; s/epoch: training steps alone; samples/s: of these; "
        "once: what it took to compute what is frozen; validation: headline metric in %, under each one's own training."
    )
    if full is None:
        return said
    device, size = full.setting
    return f"{said} In brackets: share of {full.name} (time per sample under samples/s; {device}, batches of {size})."


def markdown(found: Sequence[Cost]) -> str:
    """The table as Markdown."""
    head, *rows = table(found)
    return f"{pipes(head, [[plain(row[0]), *row[1:]] for row in rows], left=1)}\n\n{plain(notes(found))}\n"


def _number(value: float | None, base: float | None, unit: float = 1, suffix: str = "") -> str:
    if value is None:
        return _DASH
    shown = value / unit
    return f"{shown:,.0f}{suffix}{_share(value, base)}" if shown >= 100 else f"{shown:.2g}{suffix}{_share(value, base)}"


def _share(value: float, base: float | None) -> str:
    return "" if not base or value == base else f" ({100 * value / base:.2g} %)"
