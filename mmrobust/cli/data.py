"""``mmrobust data``: prepare, inspect and preview data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mmrobust.cli import console, prepare
from mmrobust.cli.console import with_common_options
from mmrobust.cli.options import AsJson, flag, listed
from mmrobust.errors import UsageError
from mmrobust.runtime.printable import one_line

app = typer.Typer(help="Prepare data sets, and inspect them.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="A data set folder.", metavar="DIR")]
ScenarioName = Annotated[str | None, flag("The scenario, as for eval: missing-both, noisy-image:blur@3, 65/65 …")]
MissingRate = Annotated[
    str | None, flag("Share of the samples to affect, 0 to 1, or a rate for each modality, as in image=0.3,text=0.7.")
]
Seed = Annotated[int, flag("The mask seed.")]
SplitName = Annotated[str, flag("Split of the data set.")]
Modalities = Annotated[list[str] | None, flag("Modalities of the model, if the data set has more.")]

CLASSES_SHOWN = 20
"""Classes that ``data info`` prints; ``--json`` has all of them."""


app.command("prepare", epilog=prepare.EXAMPLE)(with_common_options(prepare.prepare))


@app.command(
    epilog="Try: mmrobust data missing-table data/digits --scenario missing-both --missing-rate 0.7 --out table.csv"
)
@with_common_options
def missing_table(
    folder: Folder,
    scenario: ScenarioName = None,
    missing_rate: MissingRate = None,
    seed: Seed = 0,
    split: SplitName = "test",
    modalities: Modalities = None,
    out: Annotated[
        Path | None, flag("A .parquet, .csv or .pt file (.pt for the papers' code). \\[default: print CSV]")
    ] = None,
) -> None:
    """Write which sample is in which case under a scenario, as used by eval and train, for other programs."""
    from mmrobust.data.affected_split import apply_scenario
    from mmrobust.data.dataset import Dataset
    from mmrobust.data.format import choose_modalities
    from mmrobust.scenarios.grid import scenario_and_rate
    from mmrobust.scenarios.missing_tables import check_suffix, write_csv, write_missing_table

    if out is not None:
        check_suffix(out)
    dataset = Dataset(folder)
    chosen = choose_modalities(dataset.info, listed(modalities, "--modalities"))
    name, rate = scenario_and_rate(scenario, missing_rate, chosen, console.remark)
    if name is None or rate is None:
        lacking = "--scenario" if name is None else "--missing-rate"
        raise UsageError(f"name a {lacking}, as in --scenario missing-both --missing-rate 0.7")
    affected = apply_scenario(dataset, split, name, rate, seed, chosen)
    if out is None:
        console.remark_left_aside(dataset.info, chosen, modalities)
        write_csv(sys.stdout, affected.table)
        console.remark(str(affected))
    else:
        write_missing_table(out, affected.table, affected.provenance)
        console.remark_left_aside(dataset.info, chosen, modalities)
        console.print_line(f"{out}: {affected}")


@app.command(epilog="Try: mmrobust data preview data/digits --scenario noisy-image:blur@3 --out blur.html")
@with_common_options
def preview(
    folder: Folder,
    scenario: ScenarioName = None,
    missing_rate: MissingRate = None,
    seed: Seed = 0,
    split: SplitName = "test",
    modalities: Modalities = None,
    samples: Annotated[int, flag("How many samples to show.", min=1, max=24)] = 8,
    noise_profile: Annotated[str, flag("The noise of noisy-* scenarios that name no corruption.")] = "default",
    noise_seed: Annotated[int, flag("Seed of the noise.")] = 0,
    out: Annotated[Path, flag("The HTML page to write.")] = Path("preview.html"),
) -> None:
    """Show samples before and after a scenario on one HTML page: pictures, recordings to play, texts."""
    from mmrobust.data.affected_split import apply_scenario
    from mmrobust.data.dataset import Dataset
    from mmrobust.data.format import choose_modalities
    from mmrobust.degradations import Noise
    from mmrobust.preview import preview_samples, render_page
    from mmrobust.scenarios.grid import scenario_and_rate

    noise = Noise(noise_profile, noise_seed)
    dataset = Dataset(folder)
    chosen = choose_modalities(dataset.info, listed(modalities, "--modalities"))
    name, rate = scenario_and_rate(scenario, missing_rate, chosen, console.remark)
    if name is None:
        raise UsageError("name a --scenario, as in --scenario noisy-image:blur@3")
    affected = apply_scenario(dataset, split, name, 1.0 if rate is None else rate, seed, chosen)
    page = render_page(affected, noise, preview_samples(affected, noise, samples, console.progress_bar))
    console.remark_left_aside(dataset.info, chosen, modalities)
    console.write(out, page, silent=True)
    console.print_line(f"{out}: {affected}")


@app.command(epilog="Try: mmrobust data info data/digits")
@with_common_options
def info(folder: Folder, json: AsJson = False) -> None:
    """Describe a data set: modalities, splits, class balance, naturally missing modalities."""
    from mmrobust.data.dataset import Dataset
    from mmrobust.data.inspection import describe

    description = describe(Dataset(folder))
    if json:
        console.print_json(description)
    else:
        _print_info(description)


@app.command(epilog="Try: mmrobust data verify data/digits")
@with_common_options
def verify(folder: Folder, json: AsJson = False) -> None:
    """Decode every sample of a data set, and name each that cannot be read. Exit code 1 if there is one."""
    from mmrobust.data.dataset import Dataset
    from mmrobust.data.inspection import verify

    found = verify(Dataset(folder), console.progress_bar)
    console.settings.verdict = int(bool(found.faults))
    if json:
        console.print_json(found.as_dict())
    else:
        for fault in found.faults:
            console.print_line(str(fault))
        console.print_line(f"{found.samples:,} samples, {len(found.faults):,} faults   {folder}")
    if found.faults:
        raise typer.Exit(1)


def _print_info(description: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from mmrobust.data.inspection import NUMBERS
    from mmrobust.storage.tasks import REGRESSION

    splits = description["splits"]
    facts = Table.grid(padding=(0, 2))
    for key in ("name", "modalities", "task", "headline_metric", "licence", "source", "fingerprint"):
        value = description[key]
        if key == "modalities":
            kinds = description["kinds"]
            value = [name if kinds[name] == name else f"{name} ({kinds[name]})" for name in value]
        facts.add_row(key.replace("_", " "), Text(one_line(", ".join(value) if isinstance(value, list) else value)))
    if description["task"] == REGRESSION:
        facts.add_row("number", Text(one_line(description["classes"][0])))
    else:
        facts.add_row("classes", str(len(description["classes"])))
    for reason, samples in description["left_out"].items():
        facts.add_row("left out", Text(one_line(f"{samples:,}: {reason}")))
    for note in description["notes"]:
        facts.add_row("note", Text(one_line(note)))

    table = Table("", *splits, title="Samples", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("samples", *(f"{split['samples']:,}" for split in splits.values()))
    table.add_row("complete", *(f"{split['complete']:,}" for split in splits.values()), end_section=True)
    for modality in description["modalities"]:
        missing = [split["naturally_missing"][modality] for split in splits.values()]
        shares = (f"{m['samples']:,} ({m['share']:.1%})" if m["samples"] else "–" for m in missing)
        table.add_row(f"naturally missing {modality}", *shares)
    table.rows[-1].end_section = True
    named = description["classes"]
    if description["task"] == REGRESSION:
        for figure in NUMBERS:
            values = (f"{split['label'][figure]:.4g}" for split in splits.values())
            table.add_row(Text(one_line(f"{figure} of {named[0]}")), *values)
        named = ()
    totals = {c: sum(split["class_balance"][c] for split in splits.values()) for c in named}
    shown = sorted(totals, key=lambda c: -totals[c])[:CLASSES_SHOWN] if len(totals) > CLASSES_SHOWN else list(totals)
    for name in shown:
        balance = ((split["class_balance"][name], split["samples"]) for split in splits.values())
        counts = (f"{carried:,} ({carried / of:.1%})" for carried, of in balance)
        table.add_row(Text(one_line(f"class {name}")), *counts)
    if len(shown) < len(totals):
        table.add_row(f"{len(totals) - len(shown)} rarer classes: --json", *("" for _ in splits))

    console.out().print(facts)
    console.out().print(table)
