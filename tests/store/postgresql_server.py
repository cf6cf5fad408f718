"""A PostgreSQL server of the tests' own, in a temporary folder: started, killed, started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

from iterpo.demo.free_ports import free_ports
from iterpo.store.postgresql_schema import check_schema

START_SECONDS = 60.0
FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
"""Debian's, the newest first: they are not on the path."""


def find(program: str) -> str | None:
    return shutil.which(program, path=os.pathsep.join([*map(str, FOLDERS), os.environ.get("PATH", "")]))


class PostgresqlServer:
    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self._folder, self._host = folder, host
        (self._port,) = free_ports(1)
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._template = ""

    def address(self, database: str) -> str:
        return f"postgresql://iterpo@{self._host}:{self._port}/{database}"

    def create(self) -> None:
        initdb = find("initdb")
        assert initdb is not None
        self._folder.mkdir(parents=True)
        shutil.chown(self._folder, *_account())
        command = [
            initdb,
            "-D",
            self._folder / "data",
            "-U",
            "iterpo",
            "--auth=trust",
            "--locale=C.UTF-8",
            "-E",
            "UTF8",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120, **_as_account())
        with (self._folder / "data" / "pg_hba.conf").open("a") as allowed:
            allowed.write("host all iterpo samenet trust\n")

    def start(self) -> None:
        postgres = find("postgres")
        assert postgres is not None
        command = [postgres, "-D", self._folder / "data", "-p", str(self._port), "-k", self._folder]
        command += ["-c", f"listen_addresses={self._host}", "-c", "max_connections=200"]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **_as_account())
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.address("postgres"), connect_timeout=2).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """`kill -9` of the postmaster and everything that it started, as when the machine's power goes."""
        assert self._process is not None
        children = subprocess.run(["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True, check=False)
        for pid in [self._process.pid, *map(int, children.stdout.split())]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended with its parent
        self._process.wait(20)
        (self._folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)  # at once: nobody needs its hundred databases again
        self._process.wait(30)

    def new_database(self, empty: bool = False) -> str:
        """Its address. With the tables, unless it is to be empty."""
        if not (empty or self._template):
            self._template = "template0"
            self._template = self.new_database().rpartition("/")[2]
            check_schema(self.address(self._template), {})
        name = f"feedback{next(self._numbers)}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else self._template}")
        return self.address(name)


@contextmanager
def postgresql(folder: Path, host: str = "127.0.0.1") -> Iterator[PostgresqlServer]:
    server = PostgresqlServer(folder, host)
    server.create()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def temporary_postgresql() -> Iterator[PostgresqlServer]:
    with tempfile.TemporaryDirectory(prefix="iterpo-postgresql-") as folder:
        Path(folder).chmod(0o755)  # its own account must get through
        with postgresql(Path(folder) / "server") as server:
            yield server


def _account() -> tuple[int, int]:
    """PostgreSQL will not run as root; Debian's package made an account for it."""
    if os.getuid():
        return os.getuid(), os.getgid()
    account = pwd.getpwnam("postgres")
    return account.pw_uid, account.pw_gid


def _as_account() -> dict[str, int]:
    uid, gid = _account()
    return {"user": uid, "group": gid} if os.getuid() == 0 else {}
