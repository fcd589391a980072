"""Run the grid of tests.runners.faults on a Ray cluster of two nodes, one of which is killed after a while.

python tests/runners/node_loss.py RESULTS SECONDS
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from runners.cell.events import EventKind
from runners.engines.ray_engine import RayEngine
from runners.engines.scheduler import run_grid
from runners.grid.cells import Conditions
from runners.process.resources import Need
from tests.runners.faults import the_grid
from tests.runners.helpers import Watching


def main(results: Path, seconds: float) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    engine = RayEngine(cluster.address, None, "cpu", 1, Need())
    armed = threading.Event()

    def kill() -> None:
        armed.wait(600)
        time.sleep(seconds)
        cluster.remove_node(nodes[1], allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()

    def act(job, event) -> None:
        if event.kind is EventKind.TASK_DONE:
            armed.set()
        if event.kind is EventKind.NOTE:
            print(job.cell.title, event.reason, flush=True)

    try:
        outcomes = run_grid(the_grid(), results, Conditions(command="test"), engine, Watching(act))
    finally:
        killer.join()
        engine.close()
        cluster.shutdown()
    unfinished = [outcome for outcome in outcomes if not outcome.status.finished]
    sys.exit(f"{len(unfinished)} cells without a result: {unfinished[0].reason}" if unfinished else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
