"""Running the checks on a checkpoint, and the outcome."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrobust.audit.checkpoint_subject import CheckpointSubject
from mmrobust.audit.checks import CHECKS, find_check
from mmrobust.audit.own_subject import OwnSubject
from mmrobust.audit.subject import FAILED, INFORMATIONAL, NOT_APPLICABLE, PASSED, Check, Finding, Subject
from mmrobust.data.dataset import Dataset
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.models.own.own_model import OwnModel
from mmrobust.runtime.progress import Progress, no_progress
from mmrobust.storage.files import strict_json

DEFAULT_LIMIT = 128


@dataclass(frozen=True)
class Audit:
    """The outcome of an audit."""

    checkpoint: str
    method: str
    head: str
    backbone: str
    fingerprint: str
    about: str
    """What it is, for a title."""
    dataset: str
    split: str
    samples: int
    seconds: float
    findings: tuple[tuple[Check, Finding], ...]

    @property
    def failures(self) -> tuple[tuple[Check, Finding], ...]:
        """The checks that failed."""
        return tuple(pair for pair in self.findings if pair[1].status == FAILED)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def summary(self) -> str:
        """One line: PASS, or FAIL with the checks that failed and by how much."""
        counts = {status: sum(f.status == status for _, f in self.findings) for status in (PASSED, INFORMATIONAL)}
        if self.passed:
            closed = [check.name for check, finding in self.findings if finding.said == check.own]
            rest = f"; cannot be checked on a model of your own: {', '.join(closed)}" if closed else ""
            return f"PASS: {counts[PASSED]} checks passed, {counts[INFORMATIONAL]} informational{rest}"
        failures = (f"{check.name} ({_by_how_much(finding)})" for check, finding in self.failures)
        return f"FAIL: {', '.join(failures)}"

    def as_dict(self) -> dict[str, Any]:
        """Everything in values that JSON can hold; NaN and infinities become null."""
        about = {k: getattr(self, k) for k in ("checkpoint", "method", "head", "backbone", "fingerprint")}
        about |= {k: getattr(self, k) for k in ("dataset", "split", "samples", "passed", "summary")}
        checks = [
            {
                "check": check.name,
                "status": finding.status,
                "figure": finding.figure,
                "limit": finding.limit,
                "limit_is": "at least" if finding.at_least else "at most",
                "said": finding.said,
                "asks": check.asks,
                "why": check.why,
                "details": finding.details,
            }
            for check, finding in self.findings
        ]
        content: dict[str, Any] = strict_json({**about, "seconds": round(self.seconds, 2), "checks": checks})
        return content


def audit_checkpoint(
    source: str | Path,
    dataset: Dataset,
    *,
    split: str = "test",
    limit: int = DEFAULT_LIMIT,
    seed: int = 0,
    only: Sequence[str] | None = None,
    device: str = "cpu",
    backbone: str | None = None,
    progress: Progress = no_progress,
) -> Audit:
    """Audit a checkpoint, ``source`` (a folder or a Hub id), in float32 on a split of ``dataset``.

    At most ``limit`` samples are used, chosen by ``seed``; ``only`` names the checks to run, by default all; and
    ``backbone`` says where the frozen backbone is now, if not where the checkpoint remembers it.

    Raises:
        MmrobustError: a checkpoint that cannot be loaded, data that do not fit it, or an unknown name.
    """
    checks = [find_check(name) for name in only or CHECKS]
    # A changed backbone is a finding here and not an error, so that the other checks run too.
    checkpoint = load_checkpoint(source, device=device, backbone=backbone, same_backbone=False)
    subject = CheckpointSubject(checkpoint, dataset, split=split, limit=limit, seed=seed)
    return audit_subject(subject, checks, progress)


def audit_own_model(
    model: OwnModel,
    dataset: Dataset,
    *,
    split: str = "test",
    limit: int = DEFAULT_LIMIT,
    seed: int = 0,
    only: Sequence[str] | None = None,
    progress: Progress = no_progress,
) -> Audit:
    """Audit a model of the user's own; arguments as for :func:`audit_checkpoint`.

    Raises:
        MmrobustError: the data do not fit the model, its function fails, or an unknown name.
    """
    checks = [find_check(name) for name in only or CHECKS]
    return audit_subject(OwnSubject(model, dataset, split=split, limit=limit, seed=seed), checks, progress)


def audit_subject(subject: Subject, checks: Sequence[Check], progress: Progress = no_progress) -> Audit:
    """Run ``checks`` on ``subject``."""
    started, findings = time.perf_counter(), []
    with progress("audit", len(checks)) as advance:
        for check in checks:
            possible = subject.open or not check.own
            findings.append((check, check.run(subject) if possible else Finding(NOT_APPLICABLE, check.own)))
            advance(1)
    return Audit(
        checkpoint=subject.name,
        **subject.made_of,
        fingerprint=subject.fingerprint,
        about=subject.about,
        dataset=subject.split.info.name,
        split=subject.split.name,
        samples=len(subject.positions),
        seconds=time.perf_counter() - started,
        findings=tuple(findings),
    )


def _by_how_much(finding: Finding) -> str:
    if finding.figure is None or finding.limit is None:
        return finding.said
    return f"{finding.figure:.2g}, {'at least' if finding.at_least else 'at most'} {finding.limit:.2g}"
