"""What the tests need of the machine: programs, Python packages that need a compiler, a TUN device.

As root on Debian or Ubuntu, what is missing is installed; otherwise it is said which tests will be
skipped and what to do about it. Nothing here can break a run that would work without it, except where
``CI=true``: there a machine that cannot be prepared is an error, or it would pass by testing nothing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stages import ROOT

__all__ = ["PROGRAMS", "Program", "missing_programs", "prepare"]

IN_CI = os.environ.get("CI", "").lower() in ("1", "true")
POLICY = Path("/usr/sbin/policy-rc.d")  # invoke-rc.d asks it whether a package may start its service
INSTALL_LIMIT = 900.0  # seconds
NATIVE = ("netifaces", "aionetiface")  # the dependency group `native`: source only
NATIVE_LIMIT = 300.0  # seconds; they build in four


@dataclass(frozen=True, slots=True)
class Program:
    """A program that tests run.

    Args:
        command: its name.
        packages: that have it, on Debian and Ubuntu.
        service: that the package would start, or "".
        purpose: which tests cannot run without it.
    """

    command: str
    packages: tuple[str, ...]
    service: str
    purpose: str


PROGRAMS = (
    Program("ip", ("iproute2",), "", "everything in the lab"),
    Program("nft", ("nftables",), "nftables", "everything in the lab"),
    Program("mosquitto", ("mosquitto",), "mosquitto", "tests against real brokers"),
    Program("turnserver", ("coturn",), "coturn", "tests against a real STUN and TURN server"),
    Program(
        "miniupnpd", ("miniupnpd", "miniupnpd-nftables"), "miniupnpd", "tests against a real port mapper"
    ),
)


def prepare() -> list[str]:
    """Install what can be installed, and say what will be skipped.

    Returns:
        What is wrong; in CI this means failure.
    """
    return [*_prepare_programs(), *_prepare_native(), *_prepare_tun()]


def missing_programs(path: str | None = None) -> list[Program]:
    """The programs that are not there; `path` as for `shutil.which`, with the folders for root added."""
    search = path if path is not None else f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return [program for program in PROGRAMS if shutil.which(program.command, path=search) is None]


def _prepare_programs() -> list[str]:
    # The folders for root are not in everybody's PATH, and the lab looks programs up by name.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = missing_programs()
    packages = [package for program in missing for package in program.packages]
    if missing and os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get"):
        if error := _install(packages, [program.service for program in missing if program.service]):
            _say(error)
        missing = missing_programs()
    for program in missing:
        _say(
            f"{program.command} is missing, so {program.purpose} will be skipped; "
            f"as root: apt-get install {' '.join(program.packages)}"
        )
    return [f"{program.command} is missing" for program in missing]


def _install(packages: Sequence[str], services: Sequence[str]) -> str | None:
    """Install Debian packages without starting their services; the error, if there is one."""
    _say(f"installing {' '.join(packages)}")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    patient = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    with _no_service_starts():
        if error := _try([*patient, "update"], quiet, INSTALL_LIMIT):
            _say(error)  # an old list may still do
        if error := _try([*patient, "install", "--no-install-recommends", *packages], quiet, INSTALL_LIMIT):
            return error
    if Path("/run/systemd/system").is_dir():  # else nothing would start them at the next boot either
        return _try(["systemctl", "disable", *services], quiet, INSTALL_LIMIT)
    return None


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep packages from starting their services while they are installed: the tests start their own."""
    if POLICY.exists():  # the machine has a policy: a container usually has this very one
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def _prepare_native() -> list[str]:
    """Add the dependency group `native` to the environment we run in, if there is a compiler.

    `uv sync` into this very environment, rather than a second `uv run` around all stages: the packages
    then serve every process started later, and a failure leaves things as they were.
    """
    absent = [name for name in NATIVE if importlib.util.find_spec(name) is None]
    if not absent:
        return []
    names = " and ".join(absent)
    compiler = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    headers = Path(sysconfig.get_paths()["include"], "Python.h").exists()
    if compiler is None or not headers:
        lack = "no C compiler" if compiler is None else "no Python headers"
        _say(f"tests of {names} will be skipped: they are built from source and there is {lack} here")
        return []
    uv = shutil.which("uv")
    if uv is None:
        _say(f"tests of {names} will be skipped: pip install -e '.[{','.join(absent)}]' adds them")
        return [f"{names} cannot be installed without uv"]
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "UV_HTTP_TIMEOUT": "30"}
    argv = [uv, "sync", "--quiet", "--frozen", "--inexact", "--active", "--group", "native"]
    _say(f"building {names}")
    if error := _try(argv, environment, NATIVE_LIMIT):
        _say(f"tests of {names} will be skipped: {error}")
        return [f"{names} could not be built"]
    return []


def _prepare_tun() -> list[str]:
    """Containers often lack the device file, though the kernel has the driver."""
    device = Path("/dev/net/tun")
    if device.exists() or os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return []
    try:
        device.parent.mkdir(exist_ok=True)
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(10, 200))  # linux/Documentation: tuntap
    except OSError as error:
        _say(f"/dev/net/tun is missing and cannot be made ({error}): the lab will be skipped")
        return ["/dev/net/tun is missing"]
    return []


def _try(argv: Sequence[str], environment: Mapping[str, str], limit: float) -> str | None:
    """Run a command with its output on ours; what went wrong, or None."""
    try:
        code = subprocess.run(argv, env=environment, cwd=ROOT, check=False, timeout=limit).returncode
    except subprocess.TimeoutExpired:
        return f"{' '.join(argv)} took more than {limit:.0f} s"
    return f"{' '.join(argv)} ended with {code}" if code else None


def _say(text: str) -> None:
    print(f"prepare: {text}", flush=True)
