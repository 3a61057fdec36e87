"""Running a study: each job in a process of its own, teachers before students, finished jobs never again."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from mmrobust.configuration import check_json, plain
from mmrobust.data.dataset import Dataset
from mmrobust.degradations import Noise
from mmrobust.errors import Interrupted, MmrobustError, TrainingError, UsageError, unknown_name
from mmrobust.evaluation.evaluate import evaluate_models
from mmrobust.models.checkpoint import load_checkpoint
from mmrobust.runtime.progress import Progress, Say, no_progress, say_nothing
from mmrobust.runtime.ray_cluster import connected, cpus_per_gpu, reason
from mmrobust.scoring.join import ScoringSettings
from mmrobust.storage.files import is_there, read_json, write_json
from mmrobust.storage.fingerprints import fingerprint_settings
from mmrobust.storage.results import RESULTS_FILE
from mmrobust.storage.weights import check_place
from mmrobust.studies.jobs import FOLDERS, REHEARSAL, Job, checkpoint_of, results_of
from mmrobust.studies.study import Evaluation, Study
from mmrobust.studies.summary import write_report
from mmrobust.training.feature_cache import Cache
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
    title: str = "",
    engine: str = LOCAL,
    address: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    cache: Path | None = None,
    progress: Progress = no_progress,
    say: Say = say_nothing,
) -> str:
    """Train and evaluate every unfinished job of a study into ``out``; write the report, and return it as Markdown.

    ``out`` receives ``checkpoints/`` and ``results/`` (a folder for each job), ``study.parquet`` and ``study.md``. The
    ``title`` heads the report of a study that says nothing ``about`` itself. The engine ``local`` runs one job at a
    time, ``ray`` as many as the cluster at ``address`` (``None``: one that is started here) has room for. The folder
    ``cache`` keeps frozen features and encoded inputs for later commands. ``progress`` counts finished jobs, and
    ``say`` is called with a line for each.

    Raises:
        UsageError: an unknown engine, or ``out`` holds another study.
        MmrobustError: an error of a job, which is named.
        Interrupted: Ctrl-C; finished jobs are kept, and the trainings of the others resume.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    check_place(out)
    claim_folder(study, jobs, out)
    todo = [job for job in jobs if not _is_done(job, out)]
    work = partial(run_job, study=study, out=out, device=device, dtype=dtype, kept=cache and cache.resolve())
    done = len(jobs) - len(todo)
    say(f"{len(jobs)} jobs, {done} of them done already" if todo else f"all {len(jobs)} jobs were done already")
    with progress("jobs", len(jobs)) as advance:
        advance(done)
        try:
            for wave in ([job for job in todo if not job.needs_teacher], [job for job in todo if job.needs_teacher]):
                for job in _run_locally(wave, work) if engine == LOCAL else _run_on_ray(wave, work, address):
                    advance(1)
                    say(f"{job.name} done")
        except KeyboardInterrupt:
            done = sum(_is_done(job, out) for job in jobs)  # one may have ended in this moment
            raise Interrupted(f"study stopped after {done} of {len(jobs)} jobs; the same command continues") from None
    if cache is None:
        shutil.rmtree(out / CACHE_FOLDER, ignore_errors=True)
    return write_report(study, jobs, out, title)


def _is_done(job: Job, out: Path) -> bool:
    return all(is_there(results_of(out, job) / file) for file in (DONE_FILE, RESULTS_FILE))


def claim_folder(study: Study, jobs: Sequence[Job], out: Path) -> None:
    """Write into ``out`` which study it holds. More seeds, methods or data extend it; a job must keep its settings.

    Raises:
        UsageError: it holds another study, a rehearsal in place of a study or the reverse, or other files.
    """
    file = out / STUDY_FILE
    fingerprints = {job.name: fingerprint_settings(plain(job.settings)) for job in jobs}
    grid = plain(study.evaluate)
    if is_there(file):
        held = read_json(file, "study of this folder", UsageError)
        if (version := held.get("format_version", 1)) != FORMAT_VERSION:
            raise UsageError(f"{file}: study format {version}, and this mmrobust reads {FORMAT_VERSION}; upgrade it")
        try:
            check_json(held, {"jobs": {str: str}, "evaluate": dict})
        except UsageError as cause:
            raise UsageError(f"{file}: the description of the study is damaged ({cause})") from cause
        begun = {name: of for name, of in held["jobs"].items() if any(is_there(out / f / name) for f in FOLDERS)}
        if begun and (rehearsed := REHEARSAL in next(iter(begun))) != (REHEARSAL in next(iter(fingerprints))):
            what = "a rehearsal: say --rehearse" if rehearsed else "a study: say no --rehearse"
            raise UsageError(f"{out}: holds {what}, or name another --out")
        changed = [name for name, own in fingerprints.items() if begun.get(name, own) != own]
        if changed or (begun and {**plain(Evaluation()), **held["evaluate"]} != grid):
            what = f"job {changed[0]} had other settings" if changed else "another grid"
            raise UsageError(f"{out}: holds another study ({what}); name another --out")
        fingerprints = {**begun, **fingerprints}
    elif out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out}: holds files that belong to no study; name another --out")
    write_json(file, {"format_version": FORMAT_VERSION, "study": plain(study), "evaluate": grid, "jobs": fingerprints})


def run_job(job: Job, study: Study, out: Path, device: str, dtype: str, kept: Path | None = None) -> None:
    """Train a job's checkpoint and evaluate it; an unfinished training is resumed.

    Frozen features and encoded inputs are shared with whatever else uses the folder ``kept``, if one is given.
    """
    folder, results = checkpoint_of(out, job), results_of(out, job)
    memory = None if study.cache_memory is None else int(study.cache_memory * 2**30)
    cache = Cache(folder=kept or out / CACHE_FOLDER) if study.share_cache else Cache(memory=memory)
    train(job.settings, folder, resume=True, device=device, dtype=dtype, cache=cache)
    checkpoint = load_checkpoint(folder, device=device, dtype=dtype)
    grid = study.evaluate.grid(checkpoint.classifier.modalities)
    dataset, noise = Dataset(job.settings.data, kept), Noise(job.settings.noise_profile)
    scoring = ScoringSettings(f1_absent=study.evaluate.f1_absent)
    evaluate_models({job.name: checkpoint}, dataset, grid, results, noise=noise, scoring=scoring)
    write_json(results / DONE_FILE, {"job": job.name})


def _run_locally(jobs: Sequence[Job], work: Callable[[Job], None]) -> Iterator[Job]:
    """Run one job at a time, each in a fresh process, so that measured memory is its own; yield it when it is done.

    Ctrl-C is for this process alone, which then ends that of the job: it keeps what a training or evaluation that is
    killed keeps.
    """
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(kind)
    if kind == "forkserver":  # modules are imported once for all jobs
        context.set_forkserver_preload([__name__])
        resource_tracker.ensure_running()  # which would unblock the signal
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        forkserver.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    for job in jobs:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_in_process, args=(sender, work, job))
        try:
            process.start()
            sender.close()
            error = receiver.recv()
        except EOFError:
            process.join()
            how = f"ended by itself (exit code {process.exitcode})"
            if process.exitcode < 0:
                how = f"was killed (signal {-process.exitcode}); too little memory is the usual cause"
            error = TrainingError(f"its process {how}")
        except KeyboardInterrupt:
            if process.pid is not None:  # it has started
                process.terminate()
                process.join()
            raise
        process.join()
        if error is not None:
            raise job.error(error)
        yield job


def _in_process(sender: Any, work: Callable[[Job], None], job: Job) -> None:
    """Run a job in this process, and send back its error or ``None``."""
    study = multiprocessing.parent_process()
    assert study is not None

    def end_with_study() -> None:  # PDEATHSIG would not do: this process is a child of the fork server
        study.join()
        os._exit(1)

    threading.Thread(target=end_with_study, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    error = _error_of(work, job)
    with suppress(BrokenPipeError):  # the study is being stopped
        sender.send(error)


def _run_on_ray(jobs: Sequence[Job], work: partial[None], address: str | None) -> Iterator[Job]:
    """Run jobs in parallel, one core or GPU each; every machine must see the folders."""
    if not jobs:
        return
    with connected(address) as ray:
        # A worker that is given one GPU sees only that one, as its first.
        kind = work.keywords["device"].partition(":")[0]
        work = partial(work, out=work.keywords["out"].resolve(), device=kind)
        share = {"num_gpus": 1, "num_cpus": cpus_per_gpu(ray)} if kind == "cuda" else {"num_cpus": 1}
        remote = ray.remote(**share)(_in_folder)
        running = {remote.remote(Path.cwd(), work, job): job for job in jobs}
        try:
            while running:
                (finished,), _ = ray.wait(list(running), num_returns=1)
                job = running.pop(finished)
                try:
                    error = ray.get(finished)
                except ray.exceptions.RayError as cause:
                    raise job.error(TrainingError(f"its Ray worker failed: {reason(cause)}")) from cause
                if error is not None:
                    raise job.error(error)
                yield job
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


def _in_folder(folder: Path, work: Callable[[Job], None], job: Job) -> MmrobustError | None:
    """Run a job with ``folder`` as the current folder, to which the job's relative paths refer.

    They are not made absolute, because a training is only resumed under exactly the settings that it was started with.
    """
    if folder.is_dir():  # it may not exist on another machine, where every path is absolute
        os.chdir(folder)
    return _error_of(work, job)


def _error_of(work: Callable[[Job], None], job: Job) -> MmrobustError | None:
    """Run a job; its error, if any, as one that can be sent to another process and printed in one line."""
    try:
        work(job)
    except MmrobustError as error:
        return error
    except MemoryError:
        return TrainingError("this machine has too little memory for it")
    except Exception as error:  # a full disk, a bug: its text says more than that the process ended
        return TrainingError(f"unexpected {type(error).__name__}: {error}")
    return None
