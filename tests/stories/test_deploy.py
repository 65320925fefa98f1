"""deploy/: each form is read by the tool that will read it, and says what the code says.

A tool that is not at hand skips its tests, and fails them where CACHEKIT_REQUIRE names `peers`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from peers import checksums
from peers.fixtures import REQUIRED
from peers.places import compose_file, helm_file

from cachekit.cli import parser
from cachekit.ipfs.node.endpoint import DEFAULT

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "cachekit-node.service"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
CHART = DEPLOY / "helm" / "cachekit"
CREDENTIAL = ("--set", "credential.existingSecret=team")
MOST_EXPOSED = 2.0
"""Of 10, as `systemd-analyze security` counts: a daemon that needs the network and two directories can be at 1.3."""


def tool(path: Path | str | None, remedy: str) -> str:
    """The path of a tool; skips, or fails, where it is not there."""
    there = shutil.which(path) if isinstance(path, str) else str(path) if path and checksums.file_intact(path) else None
    if there is None:
        if "peers" in REQUIRED:
            pytest.fail(remedy)
        pytest.skip(remedy)
    return there


def ran(*command: str, status: int = 0) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def options(words: list[str]) -> Any:
    """What our own parser makes of a command line."""
    return parser._parser().parse_args(words)


# -- systemd -------------------------------------------------------------------------------------


@pytest.fixture
def unit(tmp_path: Path) -> str:
    """The unit, with a program that is installed here."""
    text = UNIT.read_text(encoding="utf-8")
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace("/opt/cachekit/bin/cachekit", sys.executable), encoding="utf-8")
    return str(copy)


def test_systemd_takes_the_unit(unit: str) -> None:
    """`systemd-analyze verify` has nothing to say."""
    analyze = tool("systemd-analyze", "apt-get install systemd")
    assert ran(analyze, "verify", unit).strip() == ""


def test_the_unit_is_confined(unit: str) -> None:
    """By systemd's own count the service can do little beside its work."""
    analyze = tool("systemd-analyze", "apt-get install systemd")
    told = ran(analyze, "security", "--offline=true", "--no-pager", unit)
    exposed = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert exposed is not None and float(exposed[1]) <= MOST_EXPOSED, told


def test_the_unit_says_what_the_command_takes() -> None:
    """Its command line is one of ours, and its directories are those that it names."""
    text = UNIT.read_text(encoding="utf-8")
    words = next(line for line in text.splitlines() if line.startswith("ExecStart=")).split()[1:]
    assert options(words).metrics == f"{DEFAULT[0]}:{DEFAULT[1]}"
    assert f"RuntimeDirectory={options(words).socket.parent.name}\n" in text and "StateDirectory=cachekit\n" in text


# -- compose -------------------------------------------------------------------------------------


def test_compose_takes_the_file(tmp_path: Path) -> None:
    """`docker compose config` resolves it, with the credential from where it was said to be."""
    compose = tool(compose_file(), "make peers")
    done = subprocess.run(
        [compose, "-f", str(COMPOSE), "config"],
        env={**os.environ, "CACHEKIT_SECRET_FILE": str(tmp_path / "credential")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)
    assert resolved["secrets"]["cachekit"]["file"] == str(tmp_path / "credential")
    assert (Path(resolved["services"]["node"]["build"]["context"]), "level=warning" in done.stderr) == (ROOT, False)


def test_the_service_shares_through_the_nodes_socket() -> None:
    """App and node mount one volume at one place, and the app's address is the node's socket in it."""
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    node, app = services["node"], services["app"]
    path = options(node["command"]).socket
    assert app["environment"]["CACHEKIT_IPFS_API"] == f"/unix{path}"
    assert f"socket:{path.parent}" in node["volumes"] and f"socket:{path.parent}" in app["volumes"]
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in services.values())


def test_the_image_is_made_of_what_is_there() -> None:
    """Whatever the Dockerfile copies stands in the repository, and is not left out of the build's context."""
    text = (DEPLOY / "compose" / "Dockerfile").read_text(encoding="utf-8")
    let_in = (DEPLOY / "compose" / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()]
    assert copied and all((ROOT / name).exists() and f"!{name}" in let_in for name in copied)


# -- Helm ----------------------------------------------------------------------------------------


def rendered(*values: str) -> dict[str, Any]:
    """kind → object, of the chart as Helm renders it."""
    helm = tool(helm_file(), "make peers")
    text = ran(helm, "template", "team", str(CHART), "--kube-version", "1.31.0", *values)
    return {one["kind"]: one for one in yaml.safe_load_all(text) if one}


def test_helm_takes_the_chart() -> None:
    """`helm lint --strict` passes."""
    assert "0 chart(s) failed" in ran(tool(helm_file(), "make peers"), "lint", "--strict", str(CHART), *CREDENTIAL)


def test_a_chart_without_a_credential_says_so() -> None:
    """Nothing is rendered until somebody says which credential it is."""
    helm = tool(helm_file(), "make peers")
    assert "set credential.existingSecret, or credential.value" in ran(
        helm, "template", "team", str(CHART), "--kube-version", "1.31.0", status=1
    )


def test_the_chart_has_its_secret_or_yours() -> None:
    """With a Secret of yours the chart makes none, and mounts that one; a credential makes one that is mounted."""
    yours, own = rendered(*CREDENTIAL), rendered("--set", "credential.value=ck1.text")
    assert "Secret" not in yours and own["Secret"]["stringData"] == {"credential": "ck1.text"}
    assert secret_volume(yours) == "team" and secret_volume(own) == own["Secret"]["metadata"]["name"]


def secret_volume(objects: dict[str, Any]) -> str:
    volumes = objects["DaemonSet"]["spec"]["template"]["spec"]["volumes"]
    [secret] = [volume["secret"] for volume in volumes if "secret" in volume]
    assert secret["defaultMode"] == 0o440  # what a service may have from root
    return str(secret["secretName"])


def test_the_node_is_confined_and_watched() -> None:
    """The container runs as nobody in particular, writes nowhere but in its volumes, and is asked at /healthz."""
    pod = rendered(*CREDENTIAL)["DaemonSet"]["spec"]["template"]["spec"]
    [node] = pod["containers"]
    assert options(node["args"]).socket == Path("/run/cachekit/api.sock")
    assert node["securityContext"]["runAsNonRoot"] and node["securityContext"]["readOnlyRootFilesystem"]
    assert node["securityContext"]["capabilities"] == {"drop": ["ALL"]} and not pod["automountServiceAccountToken"]
    assert {node[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")} == {"/healthz"}
    assert node["resources"]["limits"]["memory"] and node["ports"][0]["containerPort"] == DEFAULT[1]


def test_nobody_reaches_the_node_who_need_not() -> None:
    """Without a team and without a scraper nothing comes in and nothing goes out."""
    none = "networkPolicy.swarmPort=0"
    spec = rendered(*CREDENTIAL, "--set", none, "--set-json", "networkPolicy.metricsFrom=[]")["NetworkPolicy"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"] and spec["ingress"] == spec["egress"] == []
    assert "NetworkPolicy" not in rendered(*CREDENTIAL, "--set", "networkPolicy.enabled=false")


def test_every_value_is_said_and_used() -> None:
    """Each value of values.yaml has its comment, or stands under one, and a template that reads it."""
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    templates = "".join(path.read_text(encoding="utf-8") for path in (CHART / "templates").iterdir())
    names = [found[1] for line in lines if (found := re.match(r"([a-zA-Z]+):", line))]
    assert names and [name for name in names if f".Values.{name}" not in templates] == []


def test_the_chart_is_of_this_version() -> None:
    """The chart's appVersion, which is the image's tag, is the package's version."""
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"] == version[1]
