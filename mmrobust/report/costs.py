"""What trainings cost, side by side: Prompt the Missing's efficiency table, with ratios to full fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmrobust.report.markdown import escape_markdown, pipe_table
from mmrobust.report.numbers import UNKNOWN, scale_of

FULL = "full"
_COLUMNS = ("trained", "memory", "s/epoch", "samples/s", "once", "energy", "validation")


@dataclass(frozen=True)
class ReportedCost:
    """What one training cost."""

    name: str
    method: str
    trained_parameters: int
    peak_memory: float | None
    """Bytes above the loaded model."""
    seconds_per_epoch: float
    samples_per_epoch: int
    cache_seconds: float
    """Time to compute what is frozen, once."""
    energy_joules: float | None
    validation: float | None
    """Headline metric of the best epoch."""
    setting: tuple[str, int]
    """Device and batch size. Only trainings under the same setting are compared."""

    @property
    def seconds_per_sample(self) -> float:
        """Time of the training steps for one sample."""
        return self.seconds_per_epoch / self.samples_per_epoch


def training_costs(checkpoints: Mapping[str, Mapping[str, Any]]) -> list[ReportedCost]:
    """Collect the costs of the checkpoints that record them.

    ``checkpoints`` are those of the provenance of results: name → ``method``, ``training`` and so on.
    """
    found = []
    for name, facts in checkpoints.items():
        training = facts.get("training") or {}
        if measured := training.get("efficiency"):
            found.append(
                ReportedCost(
                    name=name,
                    method=str(facts["method"]),
                    trained_parameters=int(measured["trained_parameters"]),
                    peak_memory=measured.get("peak_memory"),
                    seconds_per_epoch=float(measured["seconds_per_epoch"]),
                    samples_per_epoch=int(measured["samples_per_epoch"]),
                    cache_seconds=float(measured["cache_seconds"]),
                    energy_joules=measured.get("energy_joules"),
                    validation=training.get("validation"),
                    setting=(str(measured["device"]), int(measured["batch_size"])),
                )
            )
    return found


def _full_fine_tuning(found: Sequence[ReportedCost]) -> ReportedCost | None:
    """The full fine-tuning to compare with: the one named ``full``, else the first."""
    full = (cost for cost in found if cost.method == FULL)
    return min(full, key=lambda cost: cost.name != FULL, default=None)


def cost_rows(found: Sequence[ReportedCost], headline: str = "") -> list[list[str]]:
    """The table as text, with a head; in brackets the shares of full fine-tuning under the same setting.

    ``headline`` is the metric of the validation, by default one that is a share.
    """
    full = _full_fine_tuning(found)
    rows = [["", *_COLUMNS]]
    for cost in found:
        base = full if full is not None and full.setting == cost.setting else cost
        seconds = cost.seconds_per_sample  # a share of a speed is the share of the time for one sample
        rows.append(
            [
                cost.name,
                _number(cost.trained_parameters, base.trained_parameters),
                _number(cost.peak_memory, base.peak_memory, 2**20, " MiB"),
                _number(cost.seconds_per_epoch, base.seconds_per_epoch, 1, " s"),
                f"{1 / seconds:,.0f}{_share(seconds, base.seconds_per_sample)}" if seconds else UNKNOWN,
                f"{cost.cache_seconds:.1f} s" if cost.cache_seconds else UNKNOWN,
                _number(cost.energy_joules, base.energy_joules, 1, " J"),
                UNKNOWN if cost.validation is None else scale_of(headline).value(cost.validation),
            ]
        )
    return rows


def cost_notes(found: Sequence[ReportedCost], headline: str = "") -> str:
    """What the columns mean, in a sentence or two."""
    full, scale = _full_fine_tuning(found), scale_of(headline)
    named = "headline metric in %" if scale.is_share else f"{headline}{scale.of}"
    meaning = (
        "trained: parameters; memory: peak above the loaded model; s/epoch: training steps alone; samples/s: of these; "
        f"once: what it took to compute what is frozen; validation: {named}, under each one's own training."
    )
    if full is None:
        return meaning
    compared = "time per sample under samples/s; {}, batches of {}".format(*full.setting)
    others = ", ".join(cost.name for cost in found if cost.setting != full.setting)
    unlike = f" Without shares, since the device or the batch size is another: {others}." if others else ""
    return f"{meaning} In brackets: share of {full.name} ({compared}).{unlike}"


def costs_markdown(found: Sequence[ReportedCost], headline: str = "") -> str:
    """The table and its notes as Markdown."""
    head, *rows = cost_rows(found, headline)
    escaped = [[escape_markdown(name), *numbers] for name, *numbers in rows]
    return f"{pipe_table(head, escaped, left=1)}\n\n{escape_markdown(cost_notes(found, headline))}\n"


def _number(value: float | None, base: float | None, unit: float = 1, suffix: str = "") -> str:
    if value is None:
        return UNKNOWN
    shown = value / unit
    return f"{_two_digits(shown)}{suffix}{_share(value, base)}"


def _share(value: float, base: float | None) -> str:
    return "" if not base or value == base else f" ({_two_digits(100 * value / base)} %)"


def _two_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.2g}"
