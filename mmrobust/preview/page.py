"""The gallery as one HTML page: light and dark, for keyboard and screen reader, without scripts."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from html import escape

from mmrobust.data.affected_split import AffectedSplit
from mmrobust.degradations import Noise
from mmrobust.preview.samples import Shown, ShownSample

_STYLE = """
:root { color-scheme: light dark; --line: #c8ccd2; --soft: #5a6270; --mark: #ffe08a; --ground: #fff; --ink: #1a1d21; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --soft: #a3adba; --mark: #6b5200; --ground: #14171a; --ink: #e8eaed; }
}
body { font: 16px/1.5 system-ui, sans-serif; background: var(--ground); color: var(--ink); margin: 0 auto;
  padding: 1rem 1.25rem 3rem; max-width: 62rem; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.25rem 0 .5rem; overflow-wrap: anywhere; }
p { margin: .25rem 0; }
.soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th, td { border-top: 1px solid var(--line); padding: .6rem .6rem .6rem 0; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
thead th { border: 0; padding-bottom: .2rem; }
th { font-weight: 600; }
th.modality { width: 4.5rem; }
img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
img.small { width: 9rem; image-rendering: pixelated; }
audio { display: block; width: 100%; max-width: 22rem; margin-top: .5rem; }
audio:focus-visible { outline: 3px solid #2f6feb; outline-offset: 2px; }
mark { background: var(--mark); color: inherit; }
"""


def render(affected: AffectedSplit, noise: Noise, samples: Sequence[ShownSample]) -> str:
    """The page: what the scenario is, and each sample before and after."""
    info = affected.split.info
    title = f"{affected.scenario} on {info.name}"
    profile = "" if noise == Noise() else f" Noise profile {noise.profile}, noise seed {noise.seed}."
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n"
        f'<p class="soft">Split {escape(affected.split.name)}, {escape(str(affected))}.{escape(profile)} '
        f"Shown: {len(samples)}.</p>\n"
        + "".join(_sample(sample, affected.scenario) for sample in samples)
        + "</main>\n</body>\n</html>\n"
    )


def _sample(sample: ShownSample, scenario: str) -> str:
    """One sample; its case is said where the title does not say it."""
    rows = "".join(_row(sample, modality) for modality in sample.before)
    about = [", ".join(sample.classes) or "no class", *([] if sample.case == scenario else [sample.case])]
    return (
        f"<section>\n<h2>{escape(sample.id)} "
        f'<span class="soft">· {escape(" · ".join(about))}</span></h2>\n'
        '<table>\n<thead><tr><th class="modality" scope="col">Input</th><th scope="col">Before</th>'
        f'<th scope="col">After</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</section>\n'
    )


def _row(sample: ShownSample, modality: str) -> str:
    before, after = sample.before[modality], sample.after[modality]
    return (
        f'<tr><th class="modality" scope="row">{escape(modality)}</th>'
        f"<td>{_cell(before, f'{modality} of {sample.id}, before', after.text)}</td>"
        f"<td>{_cell(after, f'{modality} of {sample.id}, after', before.text)}</td></tr>\n"
    )


def _cell(shown: Shown, label: str, other: str | None = None) -> str:
    """What a cell of the table holds; what the ``other`` form of a text has not is marked in it."""
    parts = []
    if shown.picture:
        of = "Filter bank of " if label.startswith("audio") else ""
        small = ' class="small"' if shown.small else ""
        parts.append(f'<img{small} src="{shown.picture}" alt="{escape(of + label)}">')
    if shown.sound:
        parts.append(f'<audio controls preload="metadata" src="{shown.sound}" aria-label="{escape(label)}"></audio>')
    if shown.text:
        parts.append(f"<p>{escape(shown.text) if other is None else _marked(other, shown.text)}</p>")
    if shown.note:
        parts.append(f'<p class="soft">{escape(shown.note)}</p>')
    return "".join(parts)


def _marked(other: str, text: str) -> str:
    """``text`` with what ``other`` has not marked."""
    matcher = difflib.SequenceMatcher(None, other, text, autojunk=False)
    return "".join(
        escape(text[start:end]) if kind == "equal" else f"<mark>{escape(text[start:end])}</mark>"
        for kind, _, _, start, end in matcher.get_opcodes()
        if end > start
    )
