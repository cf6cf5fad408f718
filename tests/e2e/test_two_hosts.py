"""Hosts of a network of their own: a service answers at its address there, with TLS and a token, and not otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.hosts import TwoHosts
from iterpo.demo.free_ports import free_ports
from iterpo.errors import InvalidConfig
from tests.platform.test_docs import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SETTINGS = """data_dir = "data"
[labeling]
address = "{address}:{port}"
metrics_address = ""
page_address = ""
[auth]
"""
CALLER = """token_file = "secrets/token"
tls_name = "labeling"
tls_ca = "secrets/authority.pem"
"""
SERVER = """tokens_file = "secrets/tokens"
tls_certificate = "secrets/server.pem"
tls_key = "secrets/server.key"
"""


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    with ExitStack() as ending:
        try:
            network = ending.enter_context(TwoHosts())
        except InvalidConfig as error:
            pytest.skip(str(error))
        yield network


def test_labeling_on_one_host_is_called_from_the_other(tmp_path: Path, hosts: TwoHosts) -> None:
    """Its certificate holds a name and no address, as a pod's does."""
    making = [ROOT / "deploy/secrets.sh", tmp_path / "secrets", "labeling"]
    subprocess.run(making, check=True, capture_output=True, timeout=60)
    before = SETTINGS.format(address=TwoHosts.addresses[1], port=free_ports(1)[0])

    def called(auth: str, *words: str, host: int = 0) -> tuple[int, str]:
        config = tmp_path / "iterpo.toml"
        config.write_text(before + auth)
        command: list[str | Path] = [sys.executable, "-m", "iterpo.cli.main", *words, "--config", config]
        environment = {key: value for key, value in os.environ.items() if key != "ITERPO_TOKEN"}
        told = subprocess.run(
            hosts.command(host, command), capture_output=True, text=True, timeout=30, env=environment, check=False
        )
        return told.returncode, told.stdout + told.stderr

    (tmp_path / "server.toml").write_text(before + SERVER)
    with (tmp_path / "log").open("wb") as log:
        serving = [sys.executable, "-m", "services.labeling", "--config", tmp_path / "server.toml"]
        hosts.start(1, serving, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while called(CALLER, "health", "labeling")[0] and time.monotonic() < deadline:
            time.sleep(0.5)
        method = ("call", "LabelingService/ListLabelers")
        status, told = called(CALLER, *method)
        assert (status, "one_friendly_sentence" in told) == (0, True), told
        for missing, why in (
            ("token_file", "needs a token"),
            ("tls_name", "No service answers"),
            ("", "No service answers"),
        ):
            status, told = called(re.sub(f"(?m)^{missing}.*\n", "", CALLER), *method)
            assert (status, why in told) == (2, True), told
