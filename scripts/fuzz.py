"""Fuzz the command line: damaged input of every kind, thousands of times. A finding is whatever the contract forbids.

python scripts/fuzz.py --seconds 60 --seed 0 [--only KIND] [--out FOLDER]
python scripts/fuzz.py --replay FOLDER/KIND-NNNN

Bad input must end in one line on standard error and exit code 2. A finding is a traceback, another exit code, more than
a few lines, a hang (20 s of computing), more than 2 GiB of memory, a file outside the working folder, or a file's code
that runs. Each is written, with its input, into a folder of its own. Linux only.
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

sys.path.insert(0, str(Path(__file__).parent))  # also where this is run from elsewhere

KINDS = ("commands", "settings", "manifests", "tables", "descriptions", "media", "checkpoints")
BLOCK = 200
"""Cases after which the engine begins anew with another seed: what it remembers of them grows."""
SILENCE = 90.0
"""Seconds after which a process that says nothing is killed: a case that Python's own alarm does not reach."""
EACH = 3
"""So many examples of the same fault are kept."""
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONFAULTHANDLER": "1",
}


def main() -> int:
    """Run what was asked for. Returns the exit code: 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS, action="append", help="may be repeated")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--replay", type=Path, help="a finding's folder: run its command line once more")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        kind, seed, until, sound = asked.child
        child(kind, int(seed), float(until), Path(sound))
        return 0
    if asked.replay:
        return replay(asked.replay)
    out = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mmrobust-fuzz-") as scratch:
        sound = Path(scratch) / "sound"
        from fuzzing.sound import build

        build(sound)
        before = _snapshot(sound)
        print(f"{'kind':<14}{'inputs':>8}{'per s':>8}{'refused':>9}{'findings':>10}{'faults':>8}", flush=True)
        found: Counter[str] = Counter()
        for kind in asked.only or KINDS:
            found += fuzz(kind, asked.seconds, asked.seed, sound, out)
        if _snapshot(sound) != before:
            found["a sound input was written to"] += 1
    for fault, count in found.most_common():
        print(f"{count:>6}  {fault}")
    return 1 if found else 0


def fuzz(kind: str, seconds: float, seed: int, sound: Path, out: Path) -> Counter[str]:
    """Fuzz one kind, in processes that are replaced when a case takes one down. Returns fault → how often."""
    began, cases, codes = time.time(), 0, Counter[str]()
    faults: Counter[str] = Counter()
    while (now := time.time()) < began + seconds:
        command = [sys.executable, __file__, "--child", kind, str(seed), str(began + seconds), str(sound)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **ENVIRONMENT}
        )
        heard = [now]
        watch = threading.Thread(target=_kill_when_silent, args=(process, heard), daemon=True)
        watch.start()
        begun: dict[str, object] | None = None
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            heard[0] = time.time()
            told = json.loads(line)
            if "folder" in told:
                begun = told
                continue
            assert begun is not None
            cases += 1
            codes[str(told["code"])] += 1
            if told["fault"]:
                _keep(out, kind, begun, told, faults)
            shutil.rmtree(str(begun["folder"]), ignore_errors=True)
            begun = None
        code = process.wait()
        if begun is not None:
            last = process.stderr.read()[-3000:]
            fault = "hangs beyond Python's reach" if code == -9 else f"takes the process down ({code})"
            _keep(out, kind, begun, {"fault": fault, "said": last, "code": code, "seconds": 0, "peak": 0}, faults)
            shutil.rmtree(str(begun["folder"]), ignore_errors=True)
        elif code == -9:
            print(f"{kind}: a process was killed between two cases, by this or for want of memory", file=sys.stderr)
        elif code:
            said = process.stderr.read()
            raise RuntimeError(f"the fuzzer itself failed ({code}):\n{said[:1500]}\n…\n{said[-1500:]}")
        seed += 1_000_003
    rate = cases / max(1e-9, time.time() - began)
    print(f"{kind:<14}{cases:>8}{rate:>8.1f}{codes['2']:>9}{sum(faults.values()):>10}{len(faults):>8}", flush=True)
    return Counter({f"{kind}: {fault}": count for fault, count in faults.items()})


def child(kind: str, seed: int, until: float, sound: Path) -> None:
    """Run cases of one kind until time is up, and say on standard output how each ended."""
    from fuzzing.bounded import bounded_run
    from fuzzing.kinds import KINDS as MAKERS
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    class TimeIsUp(KeyboardInterrupt):
        """Ends the engine, which lets it through."""

    says = os.fdopen(os.dup(1), "w", buffering=1)
    scratch = Path(tempfile.mkdtemp(prefix="home-", dir=sound.parent))

    def one(data: st.DataObject) -> None:
        if time.time() > until:
            raise TimeIsUp
        folder = Path(tempfile.mkdtemp(prefix="case-", dir=sound.parent))
        case = MAKERS[kind](data.draw, sound, folder)
        says.write(json.dumps({"folder": str(folder), "arguments": case.arguments, "note": case.note}) + "\n")
        verdict = bounded_run(case.arguments, folder, scratch, {})
        says.write(json.dumps(vars(verdict)) + "\n")

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
    """Run a finding's command line in a copy of its input."""
    from fuzzing.bounded import bounded_run

    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="mmrobust-fuzz-") as scratch:
        place, home = Path(scratch) / "input", Path(scratch) / "home"
        home.mkdir()
        shutil.copytree(folder / "input", place, symlinks=True)
        verdict = bounded_run(case["arguments"], place, home, {})
    print(f"mmrobust {' '.join(case['arguments'])}\n{case['note']}\n{verdict.said}")
    print(
        f"exit code {verdict.code}, {verdict.seconds:.1f} s, {verdict.peak / 2**20:.0f} MiB; {verdict.fault or 'sound'}"
    )
    return 1 if verdict.fault else 0


def _keep(out: Path, kind: str, begun: dict[str, object], told: dict[str, object], faults: Counter[str]) -> None:
    """Write a finding with its input into a folder, unless there are enough of its like."""
    fault = str(told["fault"])
    faults[fault] += 1
    if faults[fault] > EACH:
        return
    number = sum(1 for _ in out.glob(f"{kind}-*"))
    folder = out / f"{kind}-{number:04d}"
    folder.mkdir()
    case = {"arguments": begun["arguments"], "note": begun["note"]} | {
        k: told[k] for k in ("fault", "code", "seconds", "peak")
    }
    (folder / "case.json").write_text(json.dumps(case, indent=2) + "\n", encoding="utf-8")
    (folder / "said.txt").write_text(str(told["said"]), encoding="utf-8", errors="replace")

    def unkept(place: str, names: list[str]) -> list[str]:  # pipes cannot be copied; what is giant is told by the note
        paths = [Path(place) / name for name in names]
        return [
            p.name
            for p in paths
            if not p.is_symlink() and not p.is_dir() and (not p.is_file() or p.stat().st_size > 2**26)
        ]

    shutil.copytree(str(begun["folder"]), folder / "input", symlinks=True, ignore=unkept)


def _kill_when_silent(process: subprocess.Popen[str], heard: list[float]) -> None:
    while process.poll() is None:
        if time.time() - heard[0] > SILENCE:
            process.kill()
        time.sleep(1)


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """What lies in a folder: path → size and time of the last change."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


if __name__ == "__main__":
    sys.exit(main())
