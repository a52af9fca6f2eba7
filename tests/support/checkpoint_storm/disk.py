"""Small disks: a tmpfs in a mount namespace of this process, which ends with it; where that is refused, nothing."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

_NEW_MOUNTS, _NEW_USERS = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER of sched.h


def own_mounts() -> bool:
    """From now on mounts are seen by this process and its children only. To be called before any thread is started.

    False if the kernel refuses it: then a full disk is a limit on the size of files.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_MOUNTS) != 0:
        if libc.unshare(_NEW_MOUNTS | _NEW_USERS) != 0:
            return False
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    private = subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True)
    return private.returncode == 0


class SmallDisk:
    """A tmpfs of ``kibibytes`` at ``folder``. Raises CalledProcessError if mounts are refused."""

    def __init__(self, folder: Path, kibibytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._mount("-t", "tmpfs", "-o", f"size={kibibytes}k", "none")

    def grow(self, kibibytes: int) -> None:
        """Give it another size."""
        self._mount("-o", f"remount,size={kibibytes}k")

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments, str(self.folder)], check=True, capture_output=True)

    def close(self) -> None:
        """What is on it is gone."""
        subprocess.run(["umount", "-l", str(self.folder)], check=True, capture_output=True)
