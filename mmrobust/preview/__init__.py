"""A gallery of samples before and after a scenario, as one self-contained HTML page."""

from mmrobust.preview.before_after import PreviewSample, preview_samples, render_page

__all__ = ["PreviewSample", "preview_samples", "render_page"]
