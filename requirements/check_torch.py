"""Ends the install with an error that names the fix when pip took a torch that does not run without CUDA libraries."""

from __future__ import annotations

import sys

FIX = (
    "Make PyTorch's CPU wheels visible to pip (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS; the install page of pytorch.org "
    "names the index), then: .venv/bin/pip uninstall -y torch && make install"
)


def main() -> int:
    try:
        import torch
    except (ImportError, OSError) as error:
        print(f"error: torch cannot be imported: {error}\n{FIX}", file=sys.stderr)
        return 2
    if torch.version.cuda is not None:
        print(
            f"error: torch {torch.__version__} is a CUDA build, the CPU engine needs a CPU one.\n{FIX}", file=sys.stderr
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
