"""What is deployed: units, images, compose, manifests; against each other, the code's ports, and their own schemas."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from iterpo.clients.channel import translated_errors
from iterpo.cluster import members
from iterpo.config import SERVICES, Settings, load
from iterpo.tokens import digest_of, read_tokens
from services.tokens import Tokens
from tests.platform.test_docs import ROOT
from tests.services.labeling_process import labeling_process, write_config

DEPLOY = ROOT / "deploy"
DEFAULTS = Settings()
PORTS = {
    (name, kind): int(getattr(getattr(DEFAULTS, name), kind).rpartition(":")[2])
    for name in SERVICES
    for kind in ("address", "metrics_address")
}
DOORS = {("inference", "http_address"): 8000, ("labeling", "page_address"): 9202}
FIRST = "iterpo-first"  # iterpo/ray_cluster.py's, which imports Ray
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
@pytest.mark.parametrize("unit", ["iterpo.service", "iterpo@labeling.service"])
def test_units_are_units(tmp_path: Path, unit: str) -> None:
    """In a folder where what they start exists."""
    template = DEPLOY / "systemd" / re.sub("@.*[.]", "@.", unit)
    text = template.read_text().replace("/srv/iterpo/.venv/bin/iterpo", "/bin/true")
    (tmp_path / unit).write_text(text.replace("/srv/iterpo/.venv/bin/python", "/bin/true"))
    told = subprocess.run(["systemd-analyze", "verify", tmp_path / unit], capture_output=True, text=True, timeout=60)
    ours = [line for line in told.stderr.splitlines() if unit in line]
    assert (told.returncode, ours) == (0, [])


@pytest.mark.parametrize("folder", ["compose", "kubernetes"])
def test_configurations_are_read_and_stay_off_loopback_with_tls_and_tokens(folder: str) -> None:
    settings = load(DEPLOY / folder / "iterpo.toml")
    for name in SERVICES:
        section = getattr(settings, name)
        assert section.address == f"{name}:{PORTS[name, 'address']}"
        assert section.listen == f"0.0.0.0:{PORTS[name, 'address']}"
        assert section.metrics_address == f"0.0.0.0:{PORTS[name, 'metrics_address']}"
    assert settings.auth.tokens_file
    assert settings.auth.tls_certificate
    assert settings.labeling.store.startswith("postgresql://iterpo@postgresql:5432/")


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_not_root_and_open_the_codes_ports(name: str) -> None:
    text = (DEPLOY / "images" / f"{name}.Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert all(re.search(r":\d+\.\d+\.\d+-", base) for base in bases)
    assert re.search(r"^USER 10001$", text, re.MULTILINE)
    assert "requirements/cpu.lock" in text
    opened = {int(port) for port in re.search(r"^EXPOSE (.*)$", text, re.MULTILINE)[1].split()}  # type: ignore[index]
    doors = {port for (service, _), port in DOORS.items() if service == name}
    assert opened == {PORTS[name, "address"], PORTS[name, "metrics_address"], *doors}
    assert f'"-m", "services.{name}"' in text


def test_compose_names_what_there_is() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert {name for name, s in services.items() if "core" in s["profiles"]} == {*SERVICES, "postgresql"}
    for name in SERVICES:
        service = services[name]
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert {*service["secrets"]} <= compose["secrets"].keys()
    for service in services.values():
        assert re.search(r":v?\d+\.\d+", service.get("image", "built:0.1")), "every image is pinned"
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            made_by_secrets = source.startswith("./secrets/")
            assert made_by_secrets or source in compose["volumes"] or (DEPLOY / source).exists(), volume
    scraped = yaml.safe_load((DEPLOY / "compose/prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    assert {s["targets"][0] for s in scraped} == {f"{n}:{PORTS[n, 'metrics_address']}" for n in SERVICES}


def manifests(folder: str) -> list[dict[str, Any]]:
    built = subprocess.run(
        ["kubectl", "kustomize", DEPLOY / folder], capture_output=True, text=True, timeout=60, check=True
    )
    return [each for each in yaml.safe_load_all(built.stdout) if each]


@needs_kubectl
def test_manifests_build_and_are_valid_by_kubernetes_own_schemas() -> None:
    validation = pytest.importorskip("kubernetes_validate")
    found = [*manifests("kubernetes/kuberay"), *manifests("kubernetes")]
    assert {(each["kind"], each["metadata"]["name"]) for each in found} >= {
        ("StatefulSet", "inference"), ("Deployment", "labeling"), ("StatefulSet", "learner"), ("Service", "labeling"),
        ("RayJob", "iterpo"), ("NetworkPolicy", "ray"),
    }  # fmt: skip
    for each in found:
        if each["kind"] != "RayJob":  # KubeRay's own
            validation.validate(each, "1.32", strict=True)
    wrong = json.loads(json.dumps(found[-1])) | {"spec": {"no such field": 1}}
    with pytest.raises(validation.ValidationError):
        validation.validate(wrong, "1.32", strict=True)


@needs_kubectl
def test_pods_have_the_codes_ports_probes_limits_and_no_privileges() -> None:
    for each in manifests("kubernetes"):
        if each["kind"] not in ("Deployment", "StatefulSet"):
            continue
        name, pod = each["metadata"]["name"], each["spec"]["template"]["spec"]
        [container] = pod["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        doors = {"inference": {"http": 8000}, "labeling": {"page": 9202}}.get(name, {})
        assert ports == {"grpc": PORTS[name, "address"], "metrics": PORTS[name, "metrics_address"], **doors}
        assert pod["terminationGracePeriodSeconds"] >= 20 + 5 + 10, "longer than a drain"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"].keys() == {"memory"}
        for probe in ("startupProbe", "readinessProbe"):
            assert container[probe]["exec"]["command"][:3] == ["iterpo", "health", name]
        assert re.search(r":\d+\.\d+\.\d+$", container["image"])


@needs_kubectl
def test_prometheus_operators_rules_are_ours() -> None:
    [monitor, rules] = sorted(manifests("kubernetes/monitoring"), key=lambda each: each["kind"])
    assert rules["spec"] == yaml.safe_load((ROOT / "iterpo/monitor/rules.yml").read_text())
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == "metrics"


@needs_kubectl
def test_on_kuberay_the_first_of_each_service_is_where_its_name_leads() -> None:
    found = {each["kind"] + "/" + each["metadata"]["name"]: each for each in manifests("kubernetes/kuberay")}
    cluster = found["RayJob/iterpo"]["spec"]["rayClusterSpec"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert json.loads(json.loads(groups["first"]["rayStartParams"]["resources"])) == {FIRST: 1}
    assert [groups["first"][key] for key in ("replicas", "minReplicas", "maxReplicas")] == [1, 1, 1]
    assert found["RayJob/iterpo"]["spec"]["submissionMode"] == "HTTPMode", "another pod would be none of ours"
    [within, doors, operator] = found["NetworkPolicy/ray"]["spec"]["ingress"]
    assert (within.keys(), doors.keys()) == ({"from"}, {"ports"})
    metrics = {PORTS[name, "metrics_address"] for name in SERVICES}
    assert {port["port"] for port in doors["ports"]} == {*DOORS.values(), *metrics}
    assert {port["port"] for port in operator["ports"]} == {8265}, "nobody else may hand Ray a job"
    for name in SERVICES:
        spec = found[f"Service/{name}"]["spec"]
        assert spec["selector"] == {"ray.io/group": "first"}
        doors = {port for (service, _), port in DOORS.items() if service == name}
        ports = {PORTS[name, "address"], PORTS[name, "metrics_address"], *doors}
        assert {port["port"] for port in spec["ports"]} == ports
    for group in (cluster["headGroupSpec"], *groups.values()):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"].keys() == {"memory"}


def test_kuberays_configuration_is_kubernetes_own_on_ray() -> None:
    plain, ray = (load(DEPLOY / folder / "iterpo.toml") for folder in ("kubernetes", "kubernetes/kuberay"))
    assert (ray.cluster.ray_address, ray.auth.tls_name) == ("auto", "inference")
    assert [member.name for member in members(ray)][3:] == ["inference-2", "labeling-2"]
    for name in (*SERVICES, "auth"):
        assert getattr(ray, name).model_dump(exclude={"tls_name"}) == getattr(plain, name).model_dump(
            exclude={"tls_name"}
        )


def test_kuberays_image_has_the_ray_that_is_locked_and_adds_only_what_is_not() -> None:
    def pins(path: Path) -> dict[str, str]:
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith(("#", " ", "-"))]
        return dict(line.split(" ")[0].lower().replace("_", "-").split("==") for line in lines if "==" in line)

    locked, added = pins(ROOT / "requirements/cpu.lock"), pins(DEPLOY / "images/ray.lock")
    assert f"rayVersion: {locked['ray']}\n" in (DEPLOY / "kubernetes/kuberay/rayjob.yaml").read_text()
    assert len(added) > 10
    assert not added.keys() & locked.keys()
    image = (DEPLOY / "images/ray.Dockerfile").read_text()
    assert "--no-deps -r /tmp/ray.lock" in image
    assert re.findall(r"^USER (.*)$", image, re.MULTILINE)[-1] == "10001"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_secrets_that_are_made_work(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    command = [DEPLOY / "secrets.sh", folder, "inference", "labeling", "10.1.2.3", "fd00::1"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    [grant] = read_tokens(folder / "tokens")
    token = (folder / "token").read_text()
    assert (grant.digest, grant.role, grant.token) == (digest_of(token), "admin", "")
    assert Tokens(file=folder / "tokens").grant(token) == grant
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (again.returncode, "exists" in again.stderr) == (2, True)
    wrong = [DEPLOY / "secrets.sh", tmp_path / "wrong", "300.1.1.1"]
    told = subprocess.run(wrong, capture_output=True, text=True, timeout=60)
    assert (told.returncode, "300.1.1.1" in told.stderr, (tmp_path / "wrong").exists()) == (1, True, False)
    verify = ["openssl", "verify", "-CAfile", folder / "authority.pem"]
    for named in (["-verify_hostname", "labeling"], ["-verify_ip", "10.1.2.3"], ["-verify_ip", "fd00::1"]):
        subprocess.run([*verify, *named, folder / "server.pem"], check=True, capture_output=True, timeout=60)


def test_health_says_whether_a_service_answers(tmp_path: Path) -> None:
    config, address = write_config(tmp_path)

    def health(*more: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "iterpo.cli.main", "health", "labeling", *more, "--config", str(config)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        return told.returncode, told.stdout.strip()

    with labeling_process(config, address, tmp_path / "log"):
        assert health() == (0, "serving")
        assert json.loads(health("--json")[1])["address"] == address
    assert health("--timeout", "1")[0] == 1


def test_the_labeling_image_needs_no_torch(tmp_path: Path) -> None:
    """Its packages are the library's own and PostgreSQL's: the service must start without the learner's."""
    config, address = write_config(tmp_path)
    blocked = tmp_path / "blocked"
    for name in ("torch", "transformers", "peft", "vllm"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('not in this image')")
    with labeling_process(config, address, tmp_path / "log", str(blocked)) as (_, client), translated_errors():
        assert "one_friendly_sentence" in {labeler.name for labeler in client.labelers()}
