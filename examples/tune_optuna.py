"""Searches a learning rate with Optuna: trials side by side that prepare each sample once.

    python examples/tune_optuna.py DATA --jobs 4 --trials 12

DATA has a folder for each class. Needs `pip install optuna`.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from tune_training import summary, train

import coordl

STUDY = "learning-rate"


def storage_at(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def objective(trial: optuna.Trial, args: argparse.Namespace) -> float:
    reports: list[dict[str, Any]] = []

    def report(epoch: int, figures: dict[str, Any]) -> None:
        reports.append(figures)
        trial.set_user_attr("reports", reports)
        trial.report(figures["loss"], epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    rate = trial.suggest_float("learning_rate", 1e-4, 10, log=True)
    return train(rate, args.data, args.epochs, args.batch_size, args.image_size, report)


def work(path: Path, trials: int, args: argparse.Namespace, begin: Any) -> None:
    """One job: a process that runs trials one after the other."""
    study = optuna.load_study(
        study_name=STUDY,
        storage=storage_at(path),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=args.jobs),
    )
    begin.wait()  # who begins together shares from the first sample on
    study.optimize(functools.partial(objective, args=args), n_trials=trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the pictures, a folder for each class")
    parser.add_argument("--jobs", type=int, default=2, help="trials side by side")
    parser.add_argument("--trials", type=int, default=8, help="a multiple of --jobs")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=128)
    args = parser.parse_args()

    spawn = multiprocessing.get_context("spawn")
    begin = spawn.Barrier(args.jobs)
    with tempfile.TemporaryDirectory() as home, coordl.JobGroup("optuna-example"):
        path = Path(home) / "journal"
        study = optuna.create_study(study_name=STUDY, storage=storage_at(path))
        each = (path, args.trials // args.jobs, args, begin)
        jobs = [spawn.Process(target=work, args=each) for _ in range(args.jobs)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        if any(job.exitcode for job in jobs):
            raise SystemExit("a job failed")
        trials, best = study.get_trials(), study.best_params
    pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in trials)
    print(f"{len(trials)} trials, {pruned} pruned; best: {best}")
    print(summary([one for trial in trials for one in trial.user_attrs.get("reports", ())]))


if __name__ == "__main__":
    main()
