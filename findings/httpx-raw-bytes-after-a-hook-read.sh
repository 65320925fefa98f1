#!/bin/sh
# httpx 0.28.1: where an event hook has read a response (`response.read()`), `iter_bytes()` still gives the body, and
# `iter_raw()` raises StreamConsumed. Who tees the bytes as they came over the wire must look which of the two there is.
set -eu
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check httpx==0.28.1
cat > "$place/read.py" <<'PY'
import httpx

def answer(request):
    return httpx.Response(200, stream=httpx.ByteStream(b"one body"))

client = httpx.Client(
    transport=httpx.MockTransport(answer), event_hooks={"response": [lambda response: response.read()]}
)
with client.stream("GET", "http://example.test/") as response:
    print("iter_bytes:", b"".join(response.iter_bytes()))
    assert b"".join(response.iter_bytes()) == b"one body"
    try:
        list(response.iter_raw())
    except httpx.StreamConsumed as error:
        print("iter_raw:  ", type(error).__name__)
    else:
        raise SystemExit("iter_raw gives the body now")
PY
"$place/venv/bin/python" "$place/read.py"
