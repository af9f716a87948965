#!/usr/bin/env bash
# Makes the virtual environment from the hashed lock: setup.sh VENV PACKAGE...
# Needs python3.11+ and package access; brings its own uv when the machine has none.
set -euo pipefail
venv=$1; shift
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
  { echo "millstream needs Python 3.11, 3.12 or 3.13; $python is $("$python" -V 2>&1). Try: make PYTHON=python3.11 …" >&2; exit 1; }
if command -v uv >/dev/null; then
  uv=uv
else
  [ -x .millstream/uv/bin/uv ] || { "$python" -m venv .millstream/uv && .millstream/uv/bin/pip install -q 'uv>=0.9'; }
  uv=.millstream/uv/bin/uv
fi
[ -x "$venv/bin/python" ] || "$uv" venv -q --python "$python" "$venv"
# Compiled once, here: where PYTHONDONTWRITEBYTECODE is set, as in many containers, each start of each service would compile
# Feast and its kin again, 3 s of CPU a time.
"$uv" pip sync -q --python "$venv/bin/python" --compile-bytecode --require-hashes locks/dev.txt
editable=(); for p in "$@"; do editable+=(-e "$p"); done
"$uv" pip install -q --python "$venv/bin/python" --no-deps --no-build-isolation "${editable[@]}"
touch "$venv/.ready"
