"""A real Prometheus beside the services, with our scrape configuration and our alert rules."""

from __future__ import annotations

import json
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iterpo.clients.channel import is_loopback
from iterpo.config import SERVICES, Settings
from iterpo.errors import InvalidConfig, NotFound
from iterpo.supervisor import ServiceSpec

HERE = Path(__file__).parent
RULES = HERE / "rules.yml"
NAME = "prometheus"
SCRAPE_SECONDS = 5


def spec(settings: Settings, config_path: Path | None) -> ServiceSpec:
    """For the supervisor. Raises as `find_binary`, and InvalidConfig when no service has metrics (NO_METRICS), or when
    other machines could reach Prometheus, which asks for no token (INSECURE_ADDRESS)."""
    if not is_loopback(settings.monitor.address):
        raise InvalidConfig(
            f"monitor.address is {settings.monitor.address}, which other machines can reach, and Prometheus asks for "
            "no token.",
            "Bind monitor.address to 127.0.0.1 and put a proxy with TLS in front of it, or run a Prometheus of your "
            "own (docs/operations.md).",
            "INSECURE_ADDRESS",
        )
    find_binary(settings)
    configuration(settings)
    arguments = ["--config", str(config_path)] if config_path is not None else []
    return ServiceSpec(NAME, [sys.executable, "-m", "iterpo.monitor", *arguments], lambda: is_ready(settings))


def find_binary(settings: Settings) -> Path:
    """Raises NotFound (PROMETHEUS_MISSING)."""
    given = settings.monitor.prometheus
    found = given if given is not None and given.is_file() else None if given else shutil.which("prometheus")
    if found is None:
        where = f"at {given}" if given else "on the path"
        raise NotFound(
            f"There is no Prometheus {where}.",
            "Install it (Debian: apt install prometheus), or set monitor.prometheus to its binary.",
            "PROMETHEUS_MISSING",
        )
    return Path(found)


def configuration(settings: Settings, rules: Path = RULES) -> dict[str, Any]:
    """prometheus.yml as plain data, which YAML may be written in as JSON. Raises InvalidConfig (NO_METRICS)."""
    addresses = {name: getattr(settings, name).metrics_address for name in SERVICES}
    scraped = {name: address for name, address in addresses.items() if address}
    if not scraped:
        raise InvalidConfig(
            "No service has a metrics_address, so there is nothing to watch.",
            "Set metrics_address in [inference], [labeling] or [learner].",
            "NO_METRICS",
        )
    job: dict[str, Any] = {
        "job_name": "iterpo",
        "static_configs": [{"targets": [address], "labels": {"service": name}} for name, address in scraped.items()],
    }
    if settings.auth.tls_certificate is not None:
        authority = settings.auth.tls_ca or settings.auth.tls_certificate
        job |= {"scheme": "https", "tls_config": {"ca_file": str(authority)}}
    return {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "rule_files": [str(rules)],
        "scrape_configs": [job],
    }


def command(settings: Settings, rules: Path = RULES) -> Sequence[str]:
    """Writes the configuration into monitor/ of data_dir, where its data goes too, and says how to start it."""
    folder = settings.data_dir / "monitor"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(configuration(settings, rules), indent=1) + "\n")
    return (
        str(find_binary(settings)),
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--storage.tsdb.retention.time={settings.monitor.retention_days}d",
        f"--web.listen-address={settings.monitor.address}",
    )


def is_ready(settings: Settings) -> bool:
    try:
        with urllib.request.urlopen(f"http://{settings.monitor.address}/-/ready", timeout=1.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False  # not there yet: the next look is soon
