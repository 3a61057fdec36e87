"""What is said of a failure in a Ray worker, whose message holds a whole traceback and advice."""

from __future__ import annotations

from mmrobust.runtime.ray_cluster import reason

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
