#!/bin/sh
# groq 1.7.0: `copy()` (and so `with_options`) of a client made with `_strict_response_validation=True` gives one that
# validates nothing, although the copy is documented as the same client with the given changes.
set -eu
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check groq==1.7.0
cat > "$place/copied.py" <<'PY'
import groq

client = groq.Groq(api_key="k", _strict_response_validation=True)
copy = client.copy()
print("strict:", client._strict_response_validation, "->", copy._strict_response_validation)
assert client._strict_response_validation is True
assert copy._strict_response_validation is False, "the copy takes it along now"
PY
"$place/venv/bin/python" "$place/copied.py"
