"""Fuzz the command line with damaged input of every kind. A finding is any ending that the contract forbids.

python scripts/fuzz.py --seconds 60 --seed 0 [--only KIND] [--out FOLDER]
python scripts/fuzz.py --replay FOLDER/KIND-NNNN

Bad input must end in one line on standard error and exit code 2. A finding is a traceback, another exit code, more than
a few lines, a hang (20 s of computing), more than 2 GiB of memory, a write outside the working folder, or code from a
file that runs. Each finding is saved with its input in its own folder. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # so that it also works from another folder

KINDS = (
    *("commands", "settings", "manifests", "predictions", "tables", "descriptions", "media", "checkpoints", "own"),
    "plans",
)
BLOCK = 200
"""Cases after which the engine restarts with another seed, because its memory of them grows."""
SILENCE = 90.0
"""Seconds without output after which a process is killed: Python's own alarm did not reach its case."""
EACH = 3
"""How many examples of the same fault are saved."""
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONFAULTHANDLER": "1",
}


def main() -> int:
    """Parse the command line and run it. Returns the exit code: 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS, action="append", help="may be repeated")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--replay", type=Path, help="a finding's folder: run its command line again")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, seed, until, sound = options.child
        child(kind, int(seed), float(until), Path(sound))
        return 0
    if options.replay:
        return replay(options.replay)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mmrobust-fuzz-") as scratch:
        sound = Path(scratch) / "sound"
        from fuzzing.sound import build

        build(sound)
        before = _snapshot(sound)
        print(f"{'kind':<14}{'inputs':>8}{'per s':>8}{'refused':>9}{'findings':>10}{'faults':>8}", flush=True)
        found: Counter[str] = Counter()
        for kind in options.only or KINDS:
            found += fuzz(kind, options.seconds, options.seed, sound, out)
        if _snapshot(sound) != before:
            found["a sound input was written to"] += 1
    for fault, count in found.most_common():
        print(f"{count:>6}  {fault}")
    return 1 if found else 0


def fuzz(kind: str, seconds: float, seed: int, sound: Path, out: Path) -> Counter[str]:
    """Fuzz one kind, in processes that are replaced when a case kills one. Returns fault → count."""
    start, cases, codes = time.time(), 0, Counter[str]()
    faults: Counter[str] = Counter()
    while (now := time.time()) < start + seconds:
        command = [sys.executable, __file__, "--child", kind, str(seed), str(start + seconds), str(sound)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **ENVIRONMENT}
        )
        last_output = [now]
        watch = threading.Thread(target=_kill_when_silent, args=(process, last_output), daemon=True)
        watch.start()
        running: dict[str, object] | None = None
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            last_output[0] = time.time()
            message = json.loads(line)
            if "folder" in message:
                running = message
                continue
            assert running is not None
            cases += 1
            codes[str(message["code"])] += 1
            if message["fault"]:
                _save(out, kind, running, message, faults)
            shutil.rmtree(str(running["folder"]), ignore_errors=True)
            running = None
        code = process.wait()
        if running is not None:
            last = process.stderr.read()[-3000:]
            fault = "hangs beyond Python's reach" if code == -9 else f"kills the process ({code})"
            _save(out, kind, running, {"fault": fault, "said": last, "code": code, "seconds": 0, "peak": 0}, faults)
            shutil.rmtree(str(running["folder"]), ignore_errors=True)
        elif code == -9:
            print(
                f"{kind}: a process was killed between two cases, by this script or for lack of memory", file=sys.stderr
            )
        elif code:
            said = process.stderr.read()
            raise RuntimeError(f"the fuzzer itself failed ({code}):\n{said[:1500]}\n…\n{said[-1500:]}")
        seed += 1_000_003
    rate = cases / max(1e-9, time.time() - start)
    print(f"{kind:<14}{cases:>8}{rate:>8.1f}{codes['2']:>9}{sum(faults.values()):>10}{len(faults):>8}", flush=True)
    return Counter({f"{kind}: {fault}": count for fault, count in faults.items()})


def child(kind: str, seed: int, until: float, sound: Path) -> None:
    """Run cases of one kind until time is up, and report on standard output how each ended."""
    from fuzzing.bounded import bounded_run
    from fuzzing.kinds import KINDS as MAKERS
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    class TimeIsUp(KeyboardInterrupt):
        """Stops the engine, which does not catch it."""

    report = os.fdopen(os.dup(1), "w", buffering=1)
    scratch = Path(tempfile.mkdtemp(prefix="home-", dir=sound.parent))

    def one(data: st.DataObject) -> None:
        if time.time() > until:
            raise TimeIsUp
        folder = Path(tempfile.mkdtemp(prefix="case-", dir=sound.parent))
        case = MAKERS[kind](data.draw, sound, folder)
        report.write(json.dumps({"folder": str(folder), "arguments": case.arguments, "note": case.note}) + "\n")
        verdict = bounded_run(case.arguments, folder, scratch, {})
        report.write(json.dumps(vars(verdict)) + "\n")

    while True:
        limits = settings(
            max_examples=BLOCK,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        try:
            seeded(seed)(limits(given(st.data())(one)))()
        except TimeIsUp:
            return
        seed += 1


def replay(folder: Path) -> int:
    """Run the command line of a finding in a copy of its input."""
    from fuzzing.bounded import bounded_run

    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="mmrobust-fuzz-") as scratch:
        place, home = Path(scratch) / "input", Path(scratch) / "home"
        home.mkdir()
        shutil.copytree(folder / "input", place, symlinks=True)
        verdict = bounded_run(case["arguments"], place, home, {})
    print(f"mmrobust {' '.join(case['arguments'])}\n{case['note']}\n{verdict.said}")
    fault = verdict.fault or "no fault"
    print(f"exit code {verdict.code}, {verdict.seconds:.1f} s, {verdict.peak / 2**20:.0f} MiB; {fault}")
    return 1 if verdict.fault else 0


def _save(out: Path, kind: str, case: dict[str, object], verdict: dict[str, object], faults: Counter[str]) -> None:
    """Save a finding with its input in a folder, unless enough of the same fault are there."""
    fault = str(verdict["fault"])
    faults[fault] += 1
    if faults[fault] > EACH:
        return
    number = sum(1 for _ in out.glob(f"{kind}-*"))
    folder = out / f"{kind}-{number:04d}"
    folder.mkdir()
    saved = {key: case[key] for key in ("arguments", "note")}
    saved |= {key: verdict[key] for key in ("fault", "code", "seconds", "peak")}
    (folder / "case.json").write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
    (folder / "said.txt").write_text(str(verdict["said"]), encoding="utf-8", errors="replace")

    def unsaved(place: str, names: list[str]) -> list[str]:  # pipes cannot be copied; the note describes giant files
        paths = [Path(place) / name for name in names]
        return [
            p.name
            for p in paths
            if not p.is_symlink() and not p.is_dir() and (not p.is_file() or p.stat().st_size > 2**26)
        ]

    shutil.copytree(str(case["folder"]), folder / "input", symlinks=True, ignore=unsaved)


def _kill_when_silent(process: subprocess.Popen[str], last_output: list[float]) -> None:
    while process.poll() is None:
        if time.time() - last_output[0] > SILENCE:
            process.kill()
        time.sleep(1)


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return path → size and time of the last change for every file in a folder."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


if __name__ == "__main__":
    sys.exit(main())
