"""The identity file: modes, damage, and two processes that start at once."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from warpgate_core import identity as identity_module
from warpgate_core.errors import IdentityError
from warpgate_core.identity import BACKENDS, Identity, TimingLeakWarning
from warpgate_core.keys import private_file

SECRET = bytes(range(1, 33))
posix = pytest.mark.skipif(sys.platform == "win32", reason="file modes are POSIX")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "deep" / "home"
    monkeypatch.setenv("WARPGATE_HOME", str(path))
    return path


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_file_and_its_directory_are_private_from_the_start(home: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        created = Identity.load_or_create()
    finally:
        os.umask(before)
    assert _mode(home) == 0o700
    assert _mode(home / "identity") == 0o600
    assert [entry.name for entry in home.iterdir()] == ["identity"]  # nothing temporary is left
    assert Identity.load() == created
    assert Identity.load_or_create() == created
    assert Identity.load(str(home / "identity")) == created


def test_what_is_saved_comes_back_in_every_backend(tmp_path: Path) -> None:
    file = tmp_path / "key"
    identity = Identity.generate()
    assert identity.save(file) == file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TimingLeakWarning)
        for backend in BACKENDS:
            loaded = Identity.load(file, backend)
            assert (loaded, loaded.backend) == (identity, backend)
            assert loaded.export_secret() == identity.export_secret()
            assert Identity.load_or_create(file, backend).backend == backend


def test_save_never_overwrites(home: Path) -> None:
    first = Identity.generate()
    assert first.save() == home / "identity"
    before = (home / "identity").read_bytes()
    for other in (first, Identity.generate()):
        with pytest.raises(IdentityError, match="not overwritten"):
            other.save()
    assert (home / "identity").read_bytes() == before
    assert [entry.name for entry in home.iterdir()] == ["identity"]


def test_nothing_there_is_an_error_for_load_alone(home: Path) -> None:
    with pytest.raises(IdentityError, match=r"there is no identity at .*identity.*load_or_create"):
        Identity.load()
    assert not home.exists()


def test_every_damage_is_noticed_and_the_file_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "identity"
    Identity.from_secret(SECRET).save(file)
    good = file.read_bytes()
    damaged = [good[:count] for count in range(len(good))]
    damaged += [good + extra for extra in (b"\n", b"x", bytes(4096))]
    damaged += [good.replace(b"\n", b"\r\n"), good.upper(), good[::-1], os.urandom(300)]
    for at in range(len(good)):
        damaged += [good[:at] + bytes((good[at] ^ 1 << bit,)) + good[at + 1 :] for bit in range(8)]
    for bad in damaged:
        file.write_bytes(bad)
        for read in (Identity.load, Identity.load_or_create):
            with pytest.raises(IdentityError) as caught:
                read(file)
            assert str(file) in str(caught.value)
            assert SECRET.hex() not in str(caught.value)
        assert file.read_bytes() == bad
    file.write_bytes(good)
    assert Identity.load(file) == Identity.from_secret(SECRET)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (SECRET.hex(), "22" * 32, "do not belong together"),
        (SECRET.hex(), "0" * 64, "damaged|zero"),
        (SECRET.hex(), "f" * 64, "damaged|too large"),
        ("warpgate-identity 1", "warpgate-identity 2", r"newer program \(version 2.*upgrade"),
        ("warpgate-identity 1", "warpgate-identity 12", "version 12"),
        ("# Secret", "# secret", "damaged"),
    ],
)
def test_the_error_says_what_is_wrong(tmp_path: Path, old: str, new: str, says: str) -> None:
    file = tmp_path / "identity"
    Identity.from_secret(SECRET).save(file)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(IdentityError, match=says) as caught:
        Identity.load(file)
    assert "left as it is" in str(caught.value)
    assert "move it away" in str(caught.value)


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o777, 0o601])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "identity"
    Identity.generate().save(file)
    file.chmod(mode)
    for read in (Identity.load, Identity.load_or_create):
        with pytest.raises(IdentityError, match=rf"others.*{mode:04o}.*chmod 600 {file}"):
            read(file)
    file.chmod(0o400)
    Identity.load(file)


@posix
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)  # opening one for reading would wait for a writer
    (tmp_path / "directory").mkdir(mode=0o700)
    for name in ("fifo", "directory"):
        for read in (Identity.load, Identity.load_or_create):
            with pytest.raises(IdentityError, match="not a regular file"):
                read(tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path / "key")
    identity = Identity.generate()
    identity.save(tmp_path / "key")
    assert Identity.load(tmp_path / "link") == identity


@posix
def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "identity").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityError, match="no identity"):
        Identity.load_or_create(tmp_path / "identity")
    assert not (tmp_path / "elsewhere").exists()


@posix
def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IdentityError, match=r"cannot be read.*WARPGATE_HOME"):
        Identity.load(tmp_path / "file" / "identity")
    with pytest.raises(IdentityError, match="not a directory"):
        Identity.generate().save(tmp_path / "file" / "identity")
    if sys.platform == "linux":  # no user, not even root, makes directories there
        with pytest.raises(IdentityError, match=r"cannot be written.*WARPGATE_HOME"):
            Identity.load_or_create("/proc/warpgate/identity")


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="changes to another user: needs root"
)
def test_another_users_file_says_whose_it_is_to_fix(tmp_path: Path) -> None:
    Identity.generate().save(tmp_path / "identity")
    tmp_path.chmod(0o711)
    parent, child = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads; the child starts none
        process = os.fork()  # not a new interpreter: that user may not read this one's libraries
    if process == 0:  # pragma: no cover - the child reports through the pipe
        try:
            os.chdir(tmp_path)
            os.setresuid(65534, 65534, 65534)
            Identity.load("identity")
            os.write(child, b"read it")
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent looks at it
            os.write(child, repr(error).encode())
        finally:
            os._exit(0)
    os.close(child)
    with open(parent, "rb") as reader:
        said = reader.read().decode()
    os.waitpid(process, 0)
    assert said.startswith("IdentityError(")
    assert "cannot be read" in said
    assert "WARPGATE_HOME" in said


def test_the_slower_of_two_takes_the_fasters_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The narrow moment, made certain: the other process creates the file just before we do."""
    file, other = tmp_path / "identity", Identity.generate()
    create = private_file.create_private
    calls: list[Path] = []

    def once(path: Path, data: bytes) -> None:
        if not calls:
            calls.append(path)
            other.save(path)
        create(path, data)

    monkeypatch.setattr(identity_module, "create_private", once)
    assert Identity.load_or_create(file) == other
    assert calls == [file]


RACER = """
import sys
from warpgate_core.identity import Identity
Identity.generate()  # libraries loaded, before the start signal
print("ready", flush=True)
for line in sys.stdin:
    print(Identity.load_or_create(line.strip()).public_key_hex, flush=True)
"""


def test_processes_that_start_at_once_end_with_the_same_identity(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for _ in range(4)
    ]
    try:
        outputs = [racer.stdout for racer in racers if racer.stdout is not None]
        inputs = [racer.stdin for racer in racers if racer.stdin is not None]
        assert [output.readline().strip() for output in outputs] == ["ready"] * 4
        for number in range(30):
            file = tmp_path / str(number) / "identity"
            for one in inputs:
                one.write(f"{file}\n")
            keys = {output.readline().strip() for output in outputs}
            assert keys == {Identity.load(file).public_key_hex}
            assert [entry.name for entry in file.parent.iterdir()] == ["identity"]
    finally:
        for racer in racers:
            racer.communicate(timeout=20)
    assert [racer.returncode for racer in racers] == [0] * 4


@posix
def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As FAT and Android answer: link() is not permitted. Exclusive creation takes its place."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    file = tmp_path / "home" / "identity"
    identity = Identity.load_or_create(file)
    assert Identity.load(file) == identity
    assert _mode(file) == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == ["identity"]
    with pytest.raises(IdentityError, match="not overwritten"):
        Identity.generate().save(file)
    assert Identity.load(file) == identity


@posix
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IdentityError, match="No space left"):
        Identity.load_or_create(tmp_path / "home" / "identity")
    assert list((tmp_path / "home").iterdir()) == []
