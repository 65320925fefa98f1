#!/bin/sh
# cloudpickle 3.1.3, seen on Python 3.11: a function that is sent by value (one of a script, or of a module given to
# register_pickle_by_value) arrives with the file name "<dynamic-code>", whatever file it came from. Its line number
# stays, and `inspect.getsource` finds nothing, also in the process that sent it. A tool that identifies functions by
# their source must carry the text along.
set -eu
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check cloudpickle==3.1.3
cat > "$place/script.py" <<'PY'
import inspect
import cloudpickle

def double(x):
    return 2 * x

back = cloudpickle.loads(cloudpickle.dumps(double))
print("before:", double.__code__.co_filename.rpartition("/")[2], double.__code__.co_firstlineno)
print("after: ", back.__code__.co_filename, back.__code__.co_firstlineno)
assert inspect.getsource(double).startswith("def double")
assert back.__code__.co_filename == "<dynamic-code>", "the file name is another one now"
assert back.__code__.co_firstlineno == double.__code__.co_firstlineno
try:
    inspect.getsource(back)
except OSError as error:
    print("source:", error)
else:
    raise SystemExit("the source is found now")
PY
"$place/venv/bin/python" "$place/script.py"
