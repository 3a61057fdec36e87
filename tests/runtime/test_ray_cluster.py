"""What is said of a failure in a Ray worker, whose message holds a traceback and advice; its cores."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mmrobust.errors import UsageError
from mmrobust.runtime.ray_cluster import cpus_per_gpu, reason

TRACEBACK = """ray::MapWorker() (pid=7)
  File "on_ray.py", line 1, in __call__
mmrobust.errors.DataError: sample 's1' of data (test, row 3): the picture is empty (0 bytes)

The above exception was the direct cause of the following exception:
ray.exceptions.UserCodeException: user code failed

To change retry attempts, configure `ray.data.DataContext`."""


def test_our_own_error_is_named_wherever_it_stands() -> None:
    said = "sample 's1' of data (test, row 3): the picture is empty (0 bytes)"
    assert reason(RuntimeError(TRACEBACK)) == said


def test_of_any_other_the_last_line_is() -> None:
    assert reason(RuntimeError("ray::MapWorker()\n  KeyError: 'x'\n\n")) == "KeyError: 'x'"
    assert reason(RuntimeError()) == "RuntimeError"


def test_a_gpu_has_a_share_of_the_cores_of_its_node() -> None:
    head, small, large = {"CPU": 64.0}, {"CPU": 18.0, "GPU": 2.0}, {"CPU": 66.0, "GPU": 4.0}
    gone = {"Alive": False, "Resources": {"CPU": 2.0, "GPU": 8.0}}

    def share(*nodes: dict[str, float]) -> int:
        alive = [{"Alive": True, "Resources": resources} for resources in nodes]
        return cpus_per_gpu(SimpleNamespace(nodes=lambda: [gone, *alive]))

    assert share(head, small, large) == 8 and share(large) == 16 and share({"CPU": 1.0, "GPU": 8.0}) == 1
    with pytest.raises(UsageError, match="Ray knows of no GPU in the cluster; use --device cpu or --engine local"):
        share(head)
