"""`python -m iterpo.monitor --config iterpo.toml`: Prometheus, as a child that ends with this process.

A program of others does not notice when the supervisor is gone; this process does, for it, like the services.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from iterpo.config import load
from iterpo.errors import IterpoError
from iterpo.monitor.prometheus import command
from iterpo.supervisor import EXIT_CONFIGURATION, SUPERVISED

END_SECONDS = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m iterpo.monitor", description=__doc__)
    parser.add_argument("--config", type=Path, default=None, help="iterpo.toml; without it, the defaults")
    try:
        prometheus = subprocess.Popen(command(load(parser.parse_args().config)), stdin=subprocess.DEVNULL)
    except IterpoError as error:
        print(error, file=sys.stderr)  # the log's last line is what `iterpo up` shows
        return EXIT_CONFIGURATION
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: prometheus.terminate())
    if os.environ.get(SUPERVISED):
        threading.Thread(target=_end_with_the_supervisor, args=(prometheus,), daemon=True).start()
    return prometheus.wait()


def _end_with_the_supervisor(prometheus: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):  # not sys.stdin's: its lock is held while it waits, and must not be when this process ends
        continue
    prometheus.terminate()
    try:
        prometheus.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        prometheus.kill()


if __name__ == "__main__":
    sys.exit(main())
