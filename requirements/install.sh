#!/usr/bin/env bash
# Makes .venv with everything that the demo and the tests need, from requirements/cpu.lock. Safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'
python=""
for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13}; do
    if "$candidate" -c "$supported" 2>/dev/null; then python="$candidate"; break; fi
done
[ -n "$python" ] || fail "iterpo needs Python 3.11, 3.12 or 3.13. Install one, or name it: make install PYTHON=/path/to/python3.11"
[ "$(uname -sm)" = "Linux x86_64" ] || fail "the CPU engine is published for Linux on x86-64 only; this is $(uname -sm)."

if [ ! -x .venv/bin/pip ] || ! .venv/bin/python -c "$supported" 2>/dev/null; then
    "$python" -m venv .venv || fail "$python cannot make a virtual environment. On Debian: apt install python3-venv"
fi
# --no-deps: the lock is complete, and what it leaves out (torchvision, torchaudio, torchcodec) must stay out.
.venv/bin/pip install --disable-pip-version-check --no-deps -r requirements/cpu.lock
.venv/bin/pip install --disable-pip-version-check --no-deps --no-build-isolation -q -e .
.venv/bin/python requirements/check_torch.py
