"""The canonical data set: its format, reading, writing, decoding."""

from mmrobust.data.dataset import Dataset, DatasetInfo, Sample, Split

__all__ = ["Dataset", "DatasetInfo", "Sample", "Split"]
