"""``mmrobust data prepare``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mmrobust.cli import console
from mmrobust.cli.options import flag
from mmrobust.errors import UsageError, unknown_name

EXAMPLE = "Try: mmrobust data prepare digits --out data/digits"


_release = partial(flag, panel="Releases")
_own = partial(flag, panel="Your own data (manifest, cav-mae-json, mmp-arrow, hf)")


def prepare(
    data: Annotated[str, typer.Argument(help="Which data: one of the names above.", metavar="NAME")],
    out: Annotated[Path | None, flag("The data set folder to make; needed without --dry-run.")] = None,
    source: Annotated[
        Path | None, flag("The raw data: a folder, or for manifest a CSV, JSONL or Parquet file.")
    ] = None,
    limit: Annotated[
        int | None, flag("Use only N samples of each split: the first, or, listed class by class, some of each.", min=1)
    ] = None,
    allow_incomplete: Annotated[
        bool,
        flag("Leave out samples with a file that is missing or unreadable, and name each.", "--allow-incomplete"),
    ] = False,
    dry_run: Annotated[
        bool, flag("Write nothing: show what the source holds, and the first three samples.", "--dry-run")
    ] = False,
    single_plot: Annotated[bool, _release("mmimdb: use only the first plot of a film.", "--single-plot")] = False,
    each_plot: Annotated[
        bool, _release("mmimdb: make a sample of each plot of a film, like MMP's loader.", "--each-plot")
    ] = False,
    test_file: Annotated[
        str | None, _release("hateful-memes: the file of the test split. \\[default: test_seen.jsonl]")
    ] = None,
    name: Annotated[str | None, _own("What the data set is called.")] = None,
    task: Annotated[
        str | None, _own("single-label, multi-label, binary or regression. \\[default: by the labels]")
    ] = None,
    metric: Annotated[str | None, _own("The headline metric. \\[default: by the task]")] = None,
    licence: Annotated[str | None, _own("The data's licence.")] = None,
    label_csv: Annotated[Path | None, _own("cav-mae-json: the classes. \\[default: the CSV beside the lists]")] = None,
    media_root: Annotated[
        Path | None, _own("manifest, cav-mae-json: where paths start. \\[default: the folder of the table or lists]")
    ] = None,
    label_as_class: Annotated[
        bool, _own("manifest: make one class of each label, whatever it looks like.", "--label-as-class")
    ] = False,
    label_separator: Annotated[str | None, _own("manifest: what joins the classes of a sample, such as ';'.")] = None,
    subset: Annotated[str | None, _own("hf: the configuration of a repository.")] = None,
    id_column: Annotated[str | None, _own("Column of the ids. \\[default: id]")] = None,
    image_column: Annotated[str | None, _own("Column of the pictures. \\[default: image]")] = None,
    audio_column: Annotated[str | None, _own("Column of the recordings. \\[default: audio]")] = None,
    text_column: Annotated[str | None, _own("Column of the texts. \\[default: text]")] = None,
    label_column: Annotated[str | None, _own("Column of the labels. \\[default: label]")] = None,
    split_column: Annotated[str | None, _own("Column of the splits. \\[default: split]")] = None,
    group_column: Annotated[str | None, _own("Column of groups that scenarios treat alike. \\[default: group]")] = None,
    modality: Annotated[
        list[str] | None,
        _own(
            "manifest: a further modality, as in frame2=image:second_frame; may be repeated. Kinds: image, text, "
            "audio, features (lists of numbers, or paths of .npy files).",
            metavar="NAME=KIND:COLUMN",
        ),
    ] = None,
) -> None:
    """Make a data set folder from raw data, in the form that every other command reads.

    [bold]digits[/]: embedded, no download; image + text + audio.
    [bold]mmimdb[/], [bold]food101[/], [bold]hateful-memes[/]: image + text, as released.
    [bold]urbansound8k-av[/], [bold]cifar10-av[/], [bold]av-mnist[/], [bold]av-digits[/]: audio + image.
    [bold]manifest[/]: your own data, a table of paths, texts, labels and splits.
    [bold]mmp-arrow[/]: the arrow files of MMP's and DCP's make_arrow.py.
    [bold]cav-mae-json[/]: lists in the JSON of CAV-MAE and Prompt the Missing.
    [bold]hf[/]: a folder or repository id that Hugging Face's datasets opens.

        mmrobust data prepare manifest --source pets/manifest.csv --out data/pets
    """
    from mmrobust.data.prepare import PREPARERS, ManifestColumns

    if single_plot and each_plot:
        raise UsageError("--single-plot and --each-plot exclude each other")
    columns = {
        "id": id_column,
        "image": image_column,
        "audio": audio_column,
        "text": text_column,
        "label": label_column,
        "split": split_column,
        "group": group_column,
    }
    columns = {role: column for role, column in columns.items() if column is not None}
    flags: dict[str, tuple[str, Any]] = {  # parameter of a preparer → its flag, and the value given
        "source": ("--source", source),
        "allow_incomplete": ("--allow-incomplete", allow_incomplete or None),
        "plots": ("--each-plot", "each") if each_plot else ("--single-plot", "first" if single_plot else None),
        "test_file": ("--test-file", test_file),
        "name": ("--name", name),
        "task": ("--task", task),
        "headline_metric": ("--metric", metric),
        "licence": ("--licence", licence),
        "label_csv": ("--label-csv", label_csv),
        "media_root": ("--media-root", media_root),
        "label_as_class": ("--label-as-class", label_as_class or None),
        "label_separator": ("--label-separator", label_separator),
        "subset": ("--subset", subset),
        "columns": (f"--{next(iter(columns))}-column" if columns else "--label-column …", columns or None),
    }
    flags["modalities"] = ("--modality", modality or None)
    if data not in PREPARERS:
        raise unknown_name("data set", data, PREPARERS)
    preparer = PREPARERS[data]
    given = {parameter: value for parameter, (_, value) in flags.items() if value is not None}
    if preparer.source is not None and "source" not in given:
        raise UsageError(f"{data} needs --source: {preparer.source}")
    accepted = preparer.settings if preparer.source is None else ("source", "allow_incomplete", *preparer.settings)
    for parameter in given:
        if parameter not in accepted:
            known = ", ".join(spelt for parameter, (spelt, _) in flags.items() if parameter in accepted)
            raise UsageError(f"{data} takes no {flags[parameter][0]}; it takes {known or 'only --out and --limit'}")
    if "columns" in given:
        given["columns"] = ManifestColumns(**given["columns"])
    paths = [given.pop("source")] if "source" in given else []
    if dry_run:
        given.pop("allow_incomplete", None)
        for line in preparer.dry_run(*paths, remark=console.remark, **given).lines():
            console.out().print(line, markup=False)
        return
    if out is None:
        raise UsageError(f"{data} needs --out: the data set folder to make")
    info = preparer(*paths, out, limit=limit, progress=console.progress_bar, remark=console.remark, **given)
    for split, samples in info.splits.items():
        console.print_line(f"{split:<10} {samples:>7,} {'sample' if samples == 1 else 'samples':<7}   {out}")
    for reason, samples in info.left_out.items():
        console.print_line(f"left out   {samples:>7,} {'sample' if samples == 1 else 'samples':<7}   {reason}")
