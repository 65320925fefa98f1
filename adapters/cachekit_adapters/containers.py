"""What `docker` and `kubectl` say of containers, images and clusters: reads for seconds to minutes, the rest untouched.

from cachekit_adapters import containers

found = containers.run(["kubectl", "get", "pods", "-o", "json"], text=True)

Only commands that are known to read are kept, on this machine alone. All others run, are counted as a bypass, and end
what was kept of the same tool.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import Any, Final

from cachekit_adapters.command import Preset, StrPath, Verdict, preset_of, words_of
from cachekit_adapters.command import run as run_it

SOON: Final = "30s"
"""What changes by itself: what runs."""
MINUTE: Final = "60s"
LONG: Final = "10m"
"""What changes with a release."""


def run(argv: Sequence[StrPath], *, ttl: Any = None, **keywords: Any) -> subprocess.CompletedProcess[Any]:
    """`command.run` for docker and kubectl; `ttl` in place of what the noun has. Raises UsageError for another program."""
    return run_it(argv, ttl=ttl, preset=preset_of(argv, PRESETS), **keywords)


_DOCKER: Final = {
    **dict.fromkeys(("ps", "top", "port", "stats"), SOON),
    **dict.fromkeys(("inspect", "images"), MINUTE),
    **dict.fromkeys(("history", "search", "version", "info"), LONG),
}
_DOCKER_NOUNS: Final = {
    "image": {"ls": MINUTE, "list": MINUTE, "inspect": MINUTE, "history": LONG},
    "container": {"ls": SOON, "list": SOON, "ps": SOON, "inspect": MINUTE, "port": SOON, "top": SOON},
    "volume": {"ls": MINUTE, "list": MINUTE, "inspect": MINUTE},
    "network": {"ls": MINUTE, "list": MINUTE, "inspect": MINUTE},
    "context": {"ls": MINUTE, "inspect": MINUTE, "show": MINUTE},
    "manifest": {"inspect": LONG},
    "buildx": {"ls": MINUTE, "inspect": MINUTE, "du": MINUTE, "version": LONG},
    "system": {"df": MINUTE, "info": LONG},
}
_DOCKER_TAKING: Final = (
    *("-H", "--host", "-c", "--context", "--config", "-l", "--log-level", "--tlscacert", "--tlscert", "--tlskey"),
    *("-f", "--filter", "--format", "--type", "-n", "--last", "--limit"),
)


def _docker(arguments: Sequence[str]) -> Verdict:
    words = words_of(arguments, _DOCKER_TAKING)
    verb, noun = (*words.plain, "", "")[:2]
    ttl = _DOCKER_NOUNS[verb].get(noun) if verb in _DOCKER_NOUNS else _DOCKER.get(verb)
    if verb == "stats" and not words.has("--no-stream"):
        return Verdict("stream")
    if ttl is None or words.has("--bootstrap"):
        return Verdict("side_effecting", changes=True)
    return Verdict(ttl=ttl)


_KUBECTL: Final = {
    **dict.fromkeys(("get", "describe", "top"), SOON),
    **dict.fromkeys(("version", "api-resources", "api-versions", "explain", "cluster-info"), LONG),
}
_LASTING: Final = frozenset(
    {
        *(
            "node",
            "nodes",
            "no",
            "namespace",
            "namespaces",
            "ns",
            "storageclass",
            "storageclasses",
            "sc",
            "crd",
            "crds",
        ),
        *("customresourcedefinition", "customresourcedefinitions", "clusterrole", "clusterroles"),
    }
)
_NOUNS: Final = {
    "config": {"view": MINUTE, "current-context": MINUTE, "get-contexts": MINUTE, "get-clusters": MINUTE},
    "auth": {"can-i": MINUTE, "whoami": MINUTE},
    "rollout": {"history": MINUTE},
}
_KUBECTL_TAKING: Final = (
    *(
        "-n",
        "--namespace",
        "--context",
        "--cluster",
        "--user",
        "--kubeconfig",
        "-s",
        "--server",
        "-o",
        "--output",
        "-l",
    ),
    *(
        "--selector",
        "--field-selector",
        "-f",
        "--filename",
        "-k",
        "--kustomize",
        "--sort-by",
        "--template",
        "--as",
        "-L",
    ),
    *("--as-group", "--as-uid", "--token", "--request-timeout", "--chunk-size", "--api-group", "--label-columns", "-c"),
    *("--certificate-authority", "--client-certificate", "--client-key", "--cache-dir", "--profile", "-v", "--v"),
)


def _kubectl(arguments: Sequence[str]) -> Verdict:
    words = words_of(arguments, _KUBECTL_TAKING)
    verb, noun = (*words.plain, "", "")[:2]
    ttl = _NOUNS[verb].get(noun) if verb in _NOUNS else _KUBECTL.get(verb)
    if ttl is None or noun == "dump":  # into files, perhaps
        return Verdict("side_effecting", changes=verb not in ("logs", "wait", "diff", "events", "port-forward"))
    if words.has("-w", "--watch", "--watch-only"):
        return Verdict("stream")
    kinds = {kind.partition("/")[0].partition(".")[0].lower() for word in words.plain[1:] for kind in word.split(",")}
    if words.has("--raw") or (verb in ("get", "describe") and kinds & {"secret", "secrets"}):
        return Verdict("secret")
    if words.has("-f", "--filename", "-k", "--kustomize"):
        return Verdict("elsewhere")  # what it names is read there
    if verb == "get" and kinds and kinds <= _LASTING:
        ttl = MINUTE
    files = [*words.options.get("--kubeconfig", []), *os.environ.get("KUBECONFIG", "").split(os.pathsep)]
    return Verdict(ttl=ttl, inputs=tuple(filter(None, files)))


PRESETS: Final = {
    "docker": Preset(
        "containers.docker",
        _docker,
        env=(
            "DOCKER_HOST",
            "DOCKER_CONTEXT",
            "DOCKER_CONFIG",
            "DOCKER_API_VERSION",
            "DOCKER_TLS_VERIFY",
            "DOCKER_CERT_PATH",
        ),
        settings=("~/.docker/config.json",),
        share=False,
    ),
    "kubectl": Preset(
        "containers.kubectl",
        _kubectl,
        env=("KUBECONFIG", "KUBERNETES_MASTER"),
        settings=("~/.kube/config",),
        share=False,
    ),
}
"""By the program's name."""
