"""The other processes of a row whose network runs in several: started by the row's own, and told what to do by it.

The row's process is rank 0 and the only one that is measured; its clocks count the CPU time of all. The others are
started as `python -m alexnet.tools.bench.networks.net_ranks SPECIFICATION`; commands come as lines of JSON on standard
input. Ranks find each other as under torchrun.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from alexnet.tools.bench.measuring.stages_seam import NetStageSettings

_HERE = "127.0.0.1"


class Followers:
    """The processes of ranks 1 and on. Starting them makes this process rank 0."""

    def __init__(self, options: dict[str, Any], settings: NetStageSettings) -> None:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        ranks = int(options["gpus"])
        self._store = TCPStore(_HERE, 0, is_master=True, wait_for_workers=False)  # port 0: one that is free
        data = str(settings.data) if settings.data else ""
        specification = json.dumps(
            {"options": options, "device": settings.device, "threads": settings.threads, "data": data}
        )
        os.environ.update(_place(0, ranks, self._store.port))
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "alexnet.tools.bench.networks.net_ranks", specification],
                stdin=subprocess.PIPE,
                text=True,
                env=os.environ | _place(rank, ranks, self._store.port),
            )
            for rank in range(1, ranks)
        ]

    def tell(self, do: str, times: int) -> None:
        """Have all of them do something so many times, as this process does. They end when this one does."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps({"do": do, "times": times}) + "\n")
            process.stdin.flush()


def main() -> None:
    """Be one of them until there is nothing more to do."""
    from alexnet.tools.bench.networks.net_run import NetRun

    specification = json.loads(sys.argv[1])
    data = specification["data"]
    settings = NetStageSettings(
        device=specification["device"], threads=specification["threads"], data=Path(data) if data else None
    )
    run = NetRun(specification["options"], settings)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "steps":
            run.steps(command["times"])
        else:
            run.communicate(command["times"])
    os._exit(0)  # the trainer's thread waits for a step that will not come


def _place(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Return the environment that torchrun would give a rank."""
    interface = os.environ.get("GLOO_SOCKET_IFNAME", "lo")  # else it looks for the host's name, which may lead nowhere
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    words = {"MASTER_ADDR": _HERE, "TORCHELASTIC_USE_AGENT_STORE": "True", "GLOO_SOCKET_IFNAME": interface}
    return {**words, **{name: str(number) for name, number in numbers.items()}}


if __name__ == "__main__":
    main()
