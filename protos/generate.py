"""Regenerate iterpo/v1 from protos/: `python protos/generate.py`. Needs the pinned grpcio-tools of the dev extra.

The toolchain is old on purpose: stubs of grpcio-tools 1.76.0 run on protobuf 6.31 and later, newer stubs do not.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parent.parent


def main(out: Path = ROOT) -> int:
    protos = sorted(str(p.relative_to(ROOT / "protos")) for p in (ROOT / "protos/iterpo/v1").glob("*.proto"))
    arguments = [
        f"-I{ROOT / 'protos'}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        *protos,
    ]
    return int(protoc.main(["protoc", *arguments]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT))
