"""Windows Subsystem for Linux: the home directory, never a Windows drive."""

from gradience.storage.environment.platforms.platform import Platform

WSL = Platform(
    name="wsl",
    title="WSL",
    variables=("WSL_DISTRO_NAME",),
    marks=("/proc/sys/fs/binfmt_misc/WSLInterop",),
    style="local",
    keeps="All survives. Windows drives below /mnt are slow and know neither links nor locks; the "
    "virtual disk grows and does not shrink by itself.",
)
