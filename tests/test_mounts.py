"""On which file system a path lies."""

from __future__ import annotations

import os
import sys

import pytest

from search.mounts import Mount, file_system, kind_of, read_mounts

MOUNTS = (
    Mount("/", "ext4"),
    Mount("/home", "xfs"),
    Mount("/home/me/nas", "nfs4"),
    Mount("/home/me/nas/local disk", "ext4"),
    Mount("/media/stick", "fuseblk"),
    Mount("/twice", "ext4"),
    Mount("/twice", "cifs"),
)


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/home/me/library", "xfs"),
        ("/home/me/nas", "nfs4"),
        ("/home/me/nas/a/b", "nfs4"),
        ("/home/me/nas2/library", "xfs"),
        ("/home/me/nas/local disk/library", "ext4"),
        ("/media/stick/library", "fuseblk"),
        ("/twice/library", "cifs"),
        ("/homes", "ext4"),
        ("/", "ext4"),
        ("\\\\server\\share\\library", "remote"),
    ],
)
def test_a_path_is_on_the_mount_that_is_nearest_above_it(path, kind):
    assert kind_of(path, MOUNTS) == kind


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the table of Linux")
def test_this_machines_mounts_are_read():
    mounts = read_mounts()
    assert Mount("/proc", "proc") in mounts
    assert kind_of("/proc/self", mounts) == "proc"


def test_a_file_system_has_one_identity_and_another_has_another(tmp_path):
    found = file_system(str(tmp_path))
    assert found == file_system(str(tmp_path.parent)) or found is None
    assert file_system("/proc") is None
    assert file_system(str(tmp_path / "nothing")) is None or os.name == "nt"
