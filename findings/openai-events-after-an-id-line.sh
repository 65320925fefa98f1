#!/bin/sh
# openai 3.57.0 (groq 1.7.0 has the same reader): its reader of server-sent events never forgets the last `id:`. After
# one such line every block without data, such as a comment that a proxy sends to keep the connection alive, is an event
# with an empty text, which no block was before; the client then raises JSONDecodeError in the middle of a valid stream.
set -eu
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check openai==3.57.0
cat > "$place/read.py" <<'PY'
from openai._streaming import SSEDecoder

def events(text):
    return [event.data for event in SSEDecoder().iter_bytes(iter([text.encode()]))]

plain = events('data: {"n": 1}\n\n: keep-alive\n\ndata: {"n": 2}\n\n')
after = events('id: 7\ndata: {"n": 1}\n\n: keep-alive\n\ndata: {"n": 2}\n\n')
print("without an id:", plain)
print("after an id:  ", after)
assert plain == ['{"n": 1}', '{"n": 2}']
assert after == ['{"n": 1}', "", '{"n": 2}'], "the reader forgets the id now"
PY
"$place/venv/bin/python" "$place/read.py"
