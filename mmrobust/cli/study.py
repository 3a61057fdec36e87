"""``mmrobust study``: train, evaluate and report whole tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.console import with_common_options
from mmrobust.cli.options import AsJson, CacheFolder, Device, DType, flag, listed_paths

EXAMPLE = "Example: mmrobust study run dpl-vs-linear --data data/digits --out studies/dpl --dry-run"

app = typer.Typer(help="Whole tables with one command: train, evaluate, report.", no_args_is_help=True)


def run(
    study: Annotated[str, typer.Argument(help="A built-in study, or a YAML file.", metavar="FILE.yaml|NAME")],
    out: Annotated[Path, flag("Folder for the study; finished jobs in it are not repeated.")],
    backbone: Annotated[str | None, flag("A folder, a checkpoint or a Hub id, in place of the study's.")] = None,
    data: Annotated[
        list[str] | None,
        flag("Data set folders besides the study's own; commas or repetition for several.", metavar="PATH"),
    ] = None,
    engine: Annotated[str, flag("local, or ray: as many jobs at once as there is room for.")] = "local",
    ray_address: Annotated[str | None, flag("Address of the Ray cluster. Default: start one here.")] = None,
    dry_run: Annotated[bool, flag("Only list the trainings, with their time, disk and recipe.", "--dry-run")] = False,
    rehearse: Annotated[
        bool,
        flag(
            "Everything in little: a tiny backbone, one epoch, one seed, one scenario. The numbers mean nothing.",
            "--rehearse",
        ),
    ] = False,
    device: Device = "auto",
    dtype: DType = "auto",
    cache: CacheFolder = None,
    json: AsJson = False,
) -> None:
    """Train, evaluate and report every combination of a study; run it again to continue after an interruption."""
    import dataclasses

    with console.waiting("load torch"):
        from mmrobust.runtime.devices import resolve_device, resolve_dtype
        from mmrobust.studies.jobs import jobs_of
    from mmrobust.studies.study import read_study, rehearsal

    asked = read_study(study)
    if backbone is not None:
        asked = dataclasses.replace(asked, backbone=backbone)
    if rehearse:
        asked = rehearsal(asked)
    jobs = jobs_of(asked, [*listed_paths(data, "--data"), *(Path(folder) for folder in asked.data)], out)
    place = resolve_device(device)
    kind = resolve_dtype(dtype, place)
    if dry_run:
        from itertools import groupby
        from json import dumps
        from operator import attrgetter
        from tempfile import TemporaryDirectory

        from mmrobust.studies.estimate import estimate

        with TemporaryDirectory() as scratch:
            found = estimate(asked, jobs, Path(scratch), str(place), kind, console.progress_bar)
        if json:
            console.print_json(dumps({name: dataclasses.asdict(one) for name, one in found.items()}, indent=2))
            return
        # Those of one training with other seeds, which take the same, are a line.
        for training, seeds in groupby(sorted(jobs, key=attrgetter("training")), attrgetter("training")):
            of_seeds = list(seeds)
            seconds, disk = (sum(getattr(found[job.name], of) for job in of_seeds) for of in ("seconds", "disk"))
            cost = f"{console.duration(seconds):>9} {disk / 2**20:8.1f} MiB"
            recipe = of_seeds[0].settings.recipe_name
            console.out().print(f"{training:56} × {len(of_seeds):<2}{cost}  recipe {recipe}", markup=False)
        total = sum(one.seconds for one in found.values())
        disk = sum(one.disk for one in found.values()) / 2**20
        console.out().print(
            f"{len(jobs)} jobs, a seed each: about {console.duration(total)}, one after the other, and {disk:.0f} MiB"
        )
        console.remark("starting each job and scoring it are not counted: some seconds a job; what else runs now is")
        return
    with console.waiting("load torch"):
        from mmrobust.studies.runner import run_study
    from mmrobust.studies.summary import LATEX_FILE, REPORT_FILE, TABLE_FILE

    report = run_study(
        asked,
        jobs,
        out,
        title=study,
        engine=engine,
        address=ray_address,
        device=str(place),
        dtype=kind,
        cache=cache,
        progress=console.progress_bar,
        say=console.remark,
    )
    if json:
        import pandas as pd

        console.print_json(pd.read_parquet(out / TABLE_FILE).to_json(orient="records"))
        return
    console.out().print(report, markup=False)
    console.remark(f"report: {out / REPORT_FILE}, for a paper: {out / LATEX_FILE}, rows: {out / TABLE_FILE}")


def list_(
    study: Annotated[str | None, typer.Argument(help="Print this one's YAML, to change it.", metavar="NAME")] = None,
    json: AsJson = False,
) -> None:
    """List the studies that come with mmrobust, or print one of them."""
    from json import dumps

    from mmrobust.configuration import plain
    from mmrobust.errors import UsageError, unknown_name
    from mmrobust.studies.study import builtin_studies, read_study

    if study is not None:
        if study not in builtin_studies():
            hint = "; of a file of yours, `study run FILE --dry-run` lists the jobs" if Path(study).suffix else ""
            raise UsageError(f"{unknown_name('study', study, builtin_studies())}{hint}")
        if json:
            console.print_json(dumps(plain(read_study(study)), indent=2))
        else:
            console.out().print(builtin_studies()[study].read_text(encoding="utf-8"), markup=False, end="")
        return
    studies = {name: read_study(name).about for name in builtin_studies()}
    if json:
        console.print_json(dumps(studies, indent=2))
        return
    for name, about in studies.items():
        console.out().print(f"{name:16} {about}", markup=False)


app.command("run", epilog=EXAMPLE)(with_common_options(run))
app.command("list", epilog="Example: mmrobust study list mmp-table")(with_common_options(list_))
