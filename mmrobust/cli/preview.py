"""``mmrobust data preview``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmrobust.cli import console
from mmrobust.cli.options import listed

EXAMPLE = "Try: mmrobust data preview data/digits --scenario noisy-image:blur@3 --out blur.html"


def preview(
    folder: Annotated[Path, typer.Argument(help="A data set folder.", metavar="DIR")],
    scenario: Annotated[str, typer.Option(help="The scenario, as for eval: missing-both, noisy-image:blur@3 …")],
    missing_rate: Annotated[float, typer.Option(help="Share of the samples to affect, 0 to 1.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The mask seed.")] = 0,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    modalities: Annotated[
        list[str] | None, typer.Option(help="Modalities of the model, if the data set has more.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=24, help="How many samples to show.")] = 8,
    noise_profile: Annotated[
        str, typer.Option(help="The noise of noisy-* scenarios that name no corruption.")
    ] = "default",
    noise_seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    out: Annotated[Path, typer.Option(help="The HTML page to write.")] = Path("preview.html"),
) -> None:
    """Show samples before and after a scenario on one HTML page: pictures, recordings to play, texts."""
    from mmrobust.data.affected_split import apply_scenario
    from mmrobust.data.dataset import Dataset
    from mmrobust.degradations import Noise
    from mmrobust.preview import preview_samples, render_page

    noise = Noise(noise_profile, noise_seed)
    affected = apply_scenario(Dataset(folder), split, scenario, missing_rate, seed, listed(modalities, "--modalities"))
    page = render_page(affected, noise, preview_samples(affected, noise, samples, console.progress_bar))
    console.write(out, page, silent=True)
    console.out().print(f"{out}: {affected}", markup=False)
