"""The gallery as one HTML page; its template is ``page.html.jinja``."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmrobust.data.affected_split import AffectedSplit
from mmrobust.degradations import Noise
from mmrobust.preview.before_after import PreviewSample


def render_page(affected: AffectedSplit, noise: Noise, samples: Sequence[PreviewSample]) -> str:
    """The page: a summary of the scenario, and each sample before and after it."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, keep_trailing_newline=True)
    template = environment.get_template("page.html.jinja")
    return template.render(
        affected=affected, noise=noise, default_noise=noise == Noise(), samples=samples, marked=_differences
    )


def _differences(text: str, other: str | None) -> Iterator[tuple[str, bool]]:
    """The parts of ``text``, each with whether it differs from ``other``; none does where there is no other text."""
    matcher = difflib.SequenceMatcher(None, text if other is None else other, text, autojunk=False)
    for kind, _, _, start, end in matcher.get_opcodes():
        if end > start:
            yield text[start:end], kind != "equal"
