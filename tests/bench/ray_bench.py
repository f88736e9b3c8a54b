"""A bench on a Ray cluster of three nodes, one of which is killed: run as a process of its own.

`python ray_bench.py CONFIG OUT` does it twice, by value and on a shared disk, and prints what
happened as a line of JSON each. A process of its own, because Ray leaves threads, sockets and
warnings in the one that it was used in.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from factories_driver import settings_of
from gradience.bench.driver.progress import Snapshot
from gradience.bench.executors.attempt import Orders
from gradience.bench.executors.ray import RayExecutor
from gradience.bench.executors.ray_session import connect
from gradience.bench.run import RunOptions, run_bench

TRIAL = """
import sys, time
from pathlib import Path
from gradience.bench.executors.leash import hold
hold(0)
from factories_driver import make_up
from gradience.bench.ledger import TrialPaths
paths = TrialPaths(Path(sys.argv[1]))
print("at work", flush=True)
paths.progress.write_text('{"stage": "train", "done": 1, "total": 2}')
is_probe = paths.trial.read_bytes().replace(b" ", b"").count(b'"action":"probe"')
while not is_probe and not Path(GO).exists():
    time.sleep(0.1)
make_up(paths)
print("done", flush=True)
"""
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


def main(config: Path, out: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as temporary:
        os.environ["TMPDIR"] = temporary  # a node that is killed leaves something there
        cluster = Cluster()
        start(cluster, num_cpus=0, temp_dir=temporary)
        nodes = [start(cluster) for _ in range(2)]
        for transfer in ("value", "shared"):
            print(json.dumps(run(cluster, nodes, config, out / transfer, transfer)), flush=True)
            nodes.append(start(cluster))
        cluster.shutdown()


def run(cluster: Cluster, nodes: list[Any], config: Path, out: Path, transfer: str) -> Any:
    """A bench, in the middle of which the last node is killed."""
    cluster.wait_for_nodes()
    told: list[str] = []
    stages: set[str] = set()

    def watch(seen: Snapshot) -> None:
        stages.update(running.stage for running in seen.running)
        if len(nodes) == 2 and [running.stage for running in seen.running] == ["train"] * 2:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        if told:  # not before: workers of a dead node live on for a moment, and could end well
            (out / "go").touch()

    executor = RayExecutor(
        session=connect(cluster.address),
        slots=2,
        resources={"num_cpus": 1},
        orders=Orders(
            threads=1,
            environ=os.environ,
            command=(sys.executable, "-c", f"GO = {str(out / 'go')!r}\n{TRIAL}"),
        ),
        shared=transfer == "shared",
        retries=3,
        log=told.append,
    )
    options = RunOptions(executor=executor, watch=watch, notice=told.append)
    run_bench(settings_of(config, "seeds=[0]"), out, options)
    return {"told": told, "stages": sorted(stages), "open": ray.is_initialized()}


def start(cluster: Cluster, **options: object) -> Any:
    """A node; Ray gives one half a minute to come up, which a busy machine may take."""
    for _ in range(4):
        try:
            return cluster.add_node(wait=False, **{**NODE, **options})
        except Exception as error:  # noqa: BLE001 - Ray raises just that
            print(error, file=sys.stderr)
    raise SystemExit("no node of Ray comes up")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
