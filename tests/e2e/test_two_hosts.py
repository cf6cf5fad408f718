"""Hosts of a network of their own: a service answers at its address there, with TLS and a token, and not otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.hosts import TwoHosts
from iterpo.demo.free_ports import free_ports
from tests.platform.test_docs import ROOT

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and ip"),
]

SETTINGS = """data_dir = "data"
[labeling]
address = "{address}:{port}"
metrics_address = ""
page_address = ""
[auth]
tokens_file = "secrets/tokens"
token_file = "secrets/token"
tls_certificate = "secrets/server.pem"
tls_key = "secrets/server.key"
tls_ca = "secrets/authority.pem"
"""


def test_labeling_on_one_host_is_called_from_the_other(tmp_path: Path) -> None:
    far = TwoHosts.addresses[1]
    subprocess.run([ROOT / "deploy/secrets.sh", tmp_path / "secrets", far], check=True, capture_output=True, timeout=60)
    (port,) = free_ports(1)
    config, stranger = tmp_path / "iterpo.toml", tmp_path / "stranger.toml"
    config.write_text(SETTINGS.format(address=far, port=port))
    stranger.write_text(config.read_text().replace('token_file = "secrets/token"\n', "").replace("tokens_file", "#"))
    with TwoHosts() as hosts, (tmp_path / "log").open("wb") as log:

        def iterpo(host: int, *words: str, settings: Path = config) -> subprocess.CompletedProcess[str]:
            command = hosts.command(host, [sys.executable, "-m", "iterpo.cli.main", *words, "--config", settings])
            return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

        hosts.start(1, [sys.executable, "-m", "services.labeling", "--config", config], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while (told := iterpo(0, "health", "labeling")).returncode and time.monotonic() < deadline:
            time.sleep(0.5)
        assert told.stdout.strip() == "serving"
        method = ("call", "LabelingService/ListLabelers", "{}")
        assert iterpo(0, *method).returncode == 0, iterpo(0, *method).stderr
        refused = iterpo(0, *method, settings=stranger)
        assert (refused.returncode, "needs a token" in refused.stderr) == (2, True)
        plain = tmp_path / "plain.toml"
        plain.write_text(stranger.read_text().partition("tls_certificate")[0])
        assert iterpo(0, *method, settings=plain).returncode != 0, "without TLS"
        nowhere = [sys.executable, "-m", "iterpo.cli.main", "health", "labeling", "--config", config]
        assert subprocess.run(nowhere, capture_output=True, timeout=30, check=False).returncode == 1, "another network"
