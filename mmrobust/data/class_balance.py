"""Which classes the splits of a data set have samples of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence


def untrained(classes: Sequence[str], samples: Mapping[str, Counter[int]]) -> str:
    """A line about the classes that are in no training sample, but in others; empty where there is none.

    ``samples``: split → class → number of samples. Nothing is said of data without a training split.
    """
    trained = samples.get("train", Counter())
    if not trained:
        return ""
    others = {split: count for split, count in samples.items() if split != "train"}
    absent = [label for label in range(len(classes)) if not trained[label] and any(c[label] for c in others.values())]
    if not absent:
        return ""
    first, further = absent[0], len(absent) - 1
    where = " and ".join(f"{count[first]:,} {split}" for split, count in others.items() if count[first])
    more = f" (and {further} more class{'es' * (further > 1)})" if further else ""
    plural = "" if where in {"1 validation", "1 test"} else "s"
    return (
        f"class '{classes[first]}'{more} is in {where} sample{plural}, but in no training sample: nothing can learn it"
    )
