"""`python -m services.labeling` as a real process on free loopback ports, for tests that stop or kill it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iterpo.clients.channel import connect
from iterpo.clients.labeling import LabelingClient
from iterpo.demo.free_ports import free_ports
from iterpo.errors import Unavailable

ROOT = Path(__file__).parents[2]
START_SECONDS = 60


def write_config(directory: Path, labelers: str = "") -> tuple[Path, str]:
    """(iterpo.toml, address)."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    config = directory / "iterpo.toml"
    config.write_text(
        f'data_dir = "{directory / "data"}"\n[labeling]\naddress = "{address}"\n'
        f'metrics_address = ""\npage_address = ""\n{labelers}'
    )
    return config, address


@contextmanager
def labeling_process(
    config: Path, address: str, log: Path, before: str = ""
) -> Iterator[tuple[subprocess.Popen[bytes], LabelingClient]]:
    """The process, answering; killed at the end if it still runs. `before`: a folder that comes first on its path."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.labeling", "--config", config],
            env=os.environ | {"PYTHONPATH": f"{before}:{ROOT}" if before else str(ROOT)},
            stdout=output,
            stderr=output,
        )
    try:
        with connect(address) as channel:
            client = LabelingClient(channel)
            await_ready(client, process, log)
            yield process, client
    finally:
        process.kill()
        process.wait(20)


def await_ready(client: LabelingClient, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.labelers()
            return
        except Unavailable:
            time.sleep(0.1)
    raise TimeoutError(f"labeling did not come up: {log.read_text()}")
