"""Where a library may lie, and who may look into it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from search.catalog import Catalog
from search.catalog.engines import copy_to
from search.catalog.lock import LOCK_NAME
from search.catalog.places import refuse_foreign, refuse_network
from search.catalog.storage import CATALOG_NAME
from search.errors import LibraryError
from search.mounts import Mount


@pytest.mark.parametrize(
    "kind",
    [
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "glusterfs", "ceph", "lustre", "beegfs"),
        *("fuse.sshfs", "fuse.rclone", "fuse.glusterfs", "fuse", "macfuse", "NFS", "remote"),
    ],
)
def test_f47_a_network_file_system_is_refused_with_advice(tmp_path, kind):
    mounts = [Mount("/", "ext4"), Mount(str(tmp_path.resolve()), kind)]
    with pytest.raises(LibraryError, match=r"network file system \(.*photos may lie there.*--library"):
        refuse_network(tmp_path / "not" / "there", mounts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "apfs", "NTFS", "fuseblk", ""]
)
def test_f47_a_local_file_system_is_not(tmp_path, kind):
    refuse_network(tmp_path, [Mount(str(tmp_path.resolve()), kind)])


def test_a_link_counts_as_the_place_it_leads_to(tmp_path):
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "share")
    mounts = [Mount("/", "ext4"), Mount(str((tmp_path / "share").resolve()), "nfs4")]
    with pytest.raises(LibraryError, match="nfs4"):
        refuse_network(tmp_path / "link" / "library", mounts)


def test_f47_neither_reading_nor_writing_begins_there(tmp_path, monkeypatch):
    mounts = [Mount(str(tmp_path.resolve()), "nfs4")]
    monkeypatch.setattr("search.catalog.places.read_mounts", lambda: mounts)
    catalog = Catalog(str(tmp_path / "library"))
    with pytest.raises(LibraryError, match="network file system"):
        catalog.create()
    assert not list(tmp_path.iterdir())
    (tmp_path / CATALOG_NAME).touch()
    with pytest.raises(LibraryError, match="network file system"):
        Catalog(str(tmp_path)).count()


@pytest.fixture(params=[0o000, 0o022, 0o277])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_s12_a_library_is_its_owners_alone_whatever_the_umask(tmp_path, umask):
    folder = tmp_path / "library"
    catalog = Catalog(str(folder))
    catalog.create()
    backup = catalog.new_backup()
    assert backup
    with catalog.writing() as writer:
        copy_to(writer._connection, backup)
        files = {path.name: mode(path) for path in folder.iterdir()}
    assert mode(folder) == 0o700
    assert {CATALOG_NAME, f"{CATALOG_NAME}-wal", LOCK_NAME, Path(backup).name} <= set(files)
    assert set(files.values()) == {0o600}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_s12_a_folder_that_everyone_may_write_to_is_refused(tmp_path):
    folder = tmp_path / "library"
    Catalog(str(folder)).create()
    folder.chmod(0o777)
    with pytest.raises(LibraryError, match="chmod o-w"):
        Catalog(str(folder)).count()
    for tolerated in (0o1777, 0o775):
        folder.chmod(tolerated)
        assert Catalog(str(folder)).count() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_s12_a_folder_of_another_user_is_refused_but_to_the_superuser(tmp_path, monkeypatch):
    if os.geteuid() == 0:  # whose own folders are everybody's
        os.chown(tmp_path, 12345, -1)
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(LibraryError, match=rf"another user \(uid {owner}\)"):
        refuse_foreign(tmp_path)
    for let_in in (owner, 0):
        monkeypatch.setattr(os, "geteuid", lambda let_in=let_in: let_in)
        refuse_foreign(tmp_path)
