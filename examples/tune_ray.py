"""Searches a learning rate with Ray Tune: trials side by side that prepare each sample once.

    python examples/tune_ray.py DATA --jobs 4 --trials 12

DATA has a folder for each class. Needs `pip install "ray[tune]"`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray import tune
from tune_training import summary, train

import coordl


def trial(config: dict[str, Any], args: argparse.Namespace) -> None:
    def report(epoch: int, figures: dict[str, Any]) -> None:
        tune.report(figures)

    rate = config["learning_rate"]
    train(rate, args.data, args.epochs, args.batch_size, args.image_size, report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the pictures, a folder for each class")
    parser.add_argument("--jobs", type=int, default=2, help="trials side by side")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=128)
    args = parser.parse_args()
    args.data = args.data.resolve()  # a trial has a directory of its own

    # Of a cluster that runs already, trials get their environment from here, not from this process.
    group = coordl.JobGroup("ray-example").environment()
    ray.init(num_cpus=args.jobs, include_dashboard=False, runtime_env={"env_vars": group})
    with tempfile.TemporaryDirectory() as home:
        tuner = tune.Tuner(
            tune.with_parameters(trial, args=args),
            param_space={"learning_rate": tune.loguniform(1e-4, 10)},
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                num_samples=args.trials,
                scheduler=tune.schedulers.ASHAScheduler(max_t=args.epochs),
                reuse_actors=True,  # with a trial's process its loader goes to the next one
            ),
            run_config=tune.RunConfig(storage_path=home),
        )
        results = tuner.fit()
        reports = [result.metrics_dataframe for result in results]
    ray.shutdown()
    if results.num_errors:
        raise SystemExit("a trial failed")
    ended = sum(len(table) < args.epochs for table in reports)
    print(f"{len(results)} trials, {ended} ended early; best: {results.get_best_result().config}")
    print(summary([row for table in reports for row in table.to_dict("records")]))


if __name__ == "__main__":
    main()
