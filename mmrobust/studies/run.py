"""Running a study: each job in a process of its own, teachers before their students, what is done never again."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmrobust.configuration import plain
from mmrobust.data.dataset import Dataset
from mmrobust.degradations import Noise
from mmrobust.errors import Interrupted, MmrobustError, TrainingError, UsageError, unknown_name
from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.runtime.progress import Progress, Say, no_progress, say_nothing
from mmrobust.runtime.ray_cluster import connected, reason
from mmrobust.storage.files import read_json, write_json
from mmrobust.storage.fingerprints import fingerprint_settings
from mmrobust.storage.results import RESULTS_FILE
from mmrobust.storage.shape import Each, misfit
from mmrobust.studies.jobs import Job, checkpoint_of, results_of
from mmrobust.studies.study import Study
from mmrobust.training.caching import Cache
from mmrobust.training.loop import train

ENGINES = LOCAL, RAY = ("local", "ray")
FORMAT_VERSION = 1
STUDY_FILE = "study.json"
DONE_FILE = "done.json"
CACHE_FOLDER = "cache"


def run_study(
    study: Study,
    jobs: Sequence[Job],
    out: Path,
    *,
    engine: str = LOCAL,
    address: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    progress: Progress = no_progress,
    say: Say = say_nothing,
) -> None:
    """Train and evaluate every job that is not done yet, into ``out``.

    Args:
        study: the study.
        jobs: its jobs: :func:`mmrobust.studies.jobs.jobs_of`.
        out: gets ``checkpoints/`` and ``results/``, a folder for each job.
        engine: ``local``: one job after the other; ``ray``: as many at a time as the cluster has room for.
        address: of the Ray cluster; ``None``: one is started here.
        device: where each job trains.
        dtype: of the matrix work.
        progress: shows how many jobs are done.
        say: told of each job that is done.

    Raises:
        UsageError: an unknown engine, or ``out`` holds another study.
        MmrobustError: whatever a job raises; it is named.
        Interrupted: Ctrl-C; jobs that are done are kept, and the others' trainings resume.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    _claim(study, jobs, out)
    todo = [job for job in jobs if not _done(out, job)]
    run_all = _run_local if engine == LOCAL else _run_on_ray
    with progress("jobs", len(jobs)) as advance:
        advance(len(jobs) - len(todo))
        for wave in ([job for job in todo if not job.waits], [job for job in todo if job.waits]):
            for job in run_all(wave, study, out, device, dtype, address):
                advance(1)
                say(f"{job.name} done")
    shutil.rmtree(out / CACHE_FOLDER, ignore_errors=True)


def run_job(job: Job, study: Study, out: Path, device: str, dtype: str) -> None:
    """Train a job's checkpoint and evaluate it; goes on with what was begun."""
    folder, results = checkpoint_of(out, job), results_of(out, job)
    memory = None if study.cache_memory is None else int(study.cache_memory * 2**30)
    cache = Cache(folder=out / CACHE_FOLDER) if study.share_cache else Cache(memory=memory)
    train(job.settings, folder, resume=True, device=device, dtype=dtype, cache=cache)
    checkpoint = load_checkpoint(folder, device=device, dtype=dtype)
    grid = study.evaluate.grid(checkpoint.classifier.modalities)
    evaluate_models(
        {job.name: checkpoint},
        Dataset(job.settings.data),
        grid,
        results,
        noise=Noise(job.settings.noise_profile),
    )
    write_json(results / DONE_FILE, {"job": job.name})


def _done(out: Path, job: Job) -> bool:
    folder = results_of(out, job)
    return all((folder / file).is_file() for file in (DONE_FILE, RESULTS_FILE))


def _claim(study: Study, jobs: Sequence[Job], out: Path) -> None:
    """Write down which study ``out`` is of.

    Raises:
        UsageError: it is of another one.
    """
    # More seeds, methods or data extend a study; what a job of the same name means must stay the same.
    file = out / STUDY_FILE
    meant = {job.name: fingerprint_settings(plain(job.settings)) for job in jobs}
    grid = plain(study.evaluate)
    if file.is_file():
        was = read_json(file, "study of this folder", UsageError)
        if (version := was.get("format_version", 1)) != FORMAT_VERSION:
            raise UsageError(f"{file}: study format {version}, and this mmrobust reads {FORMAT_VERSION}; upgrade it")
        if wrong := misfit(was, {"jobs!": Each(str), "evaluate!": {}}):
            raise UsageError(f"{file}: what it says of the study is damaged ({wrong})")
        changed = [name for name in meant if was["jobs"].get(name, meant[name]) != meant[name]]
        if changed or was["evaluate"] != grid:
            what = f"job {changed[0]} had other settings" if changed else "another grid"
            raise UsageError(f"{out}: holds another study ({what}); name another --out")
        meant = {**was["jobs"], **meant}
    elif out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out}: holds files already that are of no study; name another --out")
    write_json(file, {"format_version": FORMAT_VERSION, "study": plain(study), "evaluate": grid, "jobs": meant})


def _run_local(
    jobs: Sequence[Job], study: Study, out: Path, device: str, dtype: str, address: str | None
) -> Iterator[Job]:
    """One job after the other, each in a fresh process, so that its memory is its own."""
    del address
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(kind)
    if kind == "forkserver":  # imports are paid once for all jobs
        context.set_forkserver_preload([__name__])
    for job in jobs:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_in_process, args=(sender, job, study, out, device, dtype))
        process.start()
        sender.close()
        try:
            said = receiver.recv()
        except EOFError:
            process.join()
            said = TrainingError(_ended(process.exitcode))
        except KeyboardInterrupt:
            process.join()
            raise Interrupted(
                f"study stopped; what is done is kept, the same command goes on with {job.name}"
            ) from None
        process.join()
        if said is not None:
            raise type(said)(f"job {job.name}: {said}")
        yield job


def _ended(exit_code: int) -> str:
    """What is known of a process that ended without a word; a negative exit code is the signal that killed it."""
    if exit_code < 0:
        return f"its process was killed (signal {-exit_code}); too little memory is the usual cause"
    return f"its process ended by itself (exit code {exit_code})"


def _in_process(sender: Any, job: Job, study: Study, out: Path, device: str, dtype: str) -> None:
    """What a job's process does: run it, and send back nothing, or the error."""
    _die_with_parent()
    try:
        sender.send(_catching(job, study, out, device, dtype))
    except KeyboardInterrupt:
        sys.exit(130)


def _die_with_parent() -> None:
    """A study that is killed leaves no job behind that would go on writing.

    The system's own notice will not do: the process that forks for the study lives as long as what it has forked.
    """
    study = multiprocessing.parent_process()
    assert study is not None

    def wait() -> None:
        study.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _run_on_ray(
    jobs: Sequence[Job], study: Study, out: Path, device: str, dtype: str, address: str | None
) -> Iterator[Job]:
    """Jobs at once, one processor (or GPU) each; the folders must be ones that every machine sees."""
    if not jobs:
        return
    with connected(address) as ray:
        # A worker that is lent one GPU sees no other, and has it as its first.
        kind = device.partition(":")[0]
        remote = ray.remote(**({"num_gpus": 1} if kind == "cuda" else {"num_cpus": 1}))(_elsewhere)
        running = {remote.remote(Path.cwd(), job, study, out.resolve(), kind, dtype): job for job in jobs}
        try:
            while running:
                (finished,), _ = ray.wait(list(running), num_returns=1)
                job = running.pop(finished)
                try:
                    said = ray.get(finished)
                except ray.exceptions.RayError as cause:
                    raise TrainingError(f"job {job.name}: its Ray worker failed: {reason(cause)}") from cause
                if said is not None:
                    raise type(said)(f"job {job.name}: {said}")
                yield job
        except KeyboardInterrupt:
            raise Interrupted("study stopped; what is done is kept, the same command goes on") from None
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


def _elsewhere(here: Path, job: Job, study: Study, out: Path, device: str, dtype: str) -> MmrobustError | None:
    """:func:`_catching`, where the relative paths of a job mean what they mean in the folder ``here``.

    They are not made absolute: a training goes on only under the settings that it was begun with, word for word.
    """
    if here.is_dir():  # it may be none on that machine, where every path is absolute
        os.chdir(here)
    return _catching(job, study, out, device, dtype)


def _catching(job: Job, study: Study, out: Path, device: str, dtype: str) -> MmrobustError | None:
    """Run a job; gives the error that it ends in, as one that can be sent to another process and told in one line."""
    try:
        run_job(job, study, out, device, dtype)
    except MmrobustError as error:
        return error
    except MemoryError:
        return TrainingError("this machine has too little memory for it")
    except Exception as error:  # a full disk, a defect: whatever it is, its text says more than that it ended
        return TrainingError(f"unexpected {type(error).__name__}: {error}")
    return None
