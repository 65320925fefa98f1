#!/bin/sh
# orjson 3.13.0, Linux: the bytes that `dumps` returns take about four kilobytes each (one in 3.11.4), however short the text is,
# because the buffer that it wrote into is shrunk in place. `sys.getsizeof` says 34. 40 000 results of one digit take
# 160 megabytes; copies of them (`bytes(bytearray(result))`) take less than three. Who keeps many results, a cache for
# one, keeps copies.
set -eu
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check orjson==3.13.0
cat > "$place/measure.py" <<'PY'
import sys
import orjson

MANY = 40_000

def resident():
    with open("/proc/self/statm") as found:
        return int(found.read().split()[1]) * 4096

def grown(make):
    before = resident()
    kept = [make(n % 10) for n in range(MANY)]
    return (resident() - before) / len(kept), sys.getsizeof(kept[0])

copies, said = grown(lambda n: bytes(bytearray(orjson.dumps(n))))
results, also_said = grown(orjson.dumps)
print(f"copies: {copies:.0f} bytes each; results: {results:.0f} bytes each; sys.getsizeof: {said} and {also_said}")
assert said == also_said == 34
assert copies < 120, "copies take more now"
assert results > 3_000, "results take less now"
PY
"$place/venv/bin/python" "$place/measure.py"
