"""The canonical data set: its format, reading, writing, decoding."""

from mmrobust.data.dataset import Dataset, Sample, Split
from mmrobust.data.format import DatasetInfo

__all__ = ["Dataset", "DatasetInfo", "Sample", "Split"]
