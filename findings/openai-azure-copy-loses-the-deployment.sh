#!/bin/sh
# openai 3.3.1: `AzureOpenAI.copy()` (and so `with_options`) does not take `azure_deployment` along. The copy's base URL
# still ends in the deployment, but it no longer knows that it does, so the routes that must not have it get it.
set -eu
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check openai==3.3.1
cat > "$place/copied.py" <<'PY'
import openai

client = openai.AzureOpenAI(
    api_key="k", api_version="2025-01-01", azure_endpoint="https://example.test", azure_deployment="mine"
)
copy = client.copy()
print("deployment:", client._azure_deployment, "->", copy._azure_deployment)
print("models:    ", client._prepare_url("/models"), "->", copy._prepare_url("/models"))
assert client._azure_deployment == "mine"
assert copy._azure_deployment is None, "the copy takes it along now"
assert str(client._prepare_url("/models")) != str(copy._prepare_url("/models"))
PY
"$place/venv/bin/python" "$place/copied.py"
