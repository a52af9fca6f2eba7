"""The container that work runs in: which program starts it, from which image, and what it gets of its node."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lmbatch.config.base import UNSHOWN, Bytes, Section

Runtime = Literal["none", "pyxis", "apptainer", "charliecloud", "podman", "docker"]

# Neither a colon nor a comma: one separates the parts of a mount for some runtimes, the other for the rest.
_MOUNT = re.compile(r"/[^:,]*:/[^:,]*(:ro)?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ContainerSite(Section):
    """The container of preprocessing tasks and training processes. The driver and the batch script stay outside."""

    runtime: Runtime = Field("none", description="What starts it; none: work runs on the node itself.")
    image: str | None = Field(
        None, description="podman, docker: a name; charliecloud: a folder; apptainer: a .sif file; pyxis: a .sqsh file "
        "or a name such as REGISTRY#NAME:TAG. A path must be the same on all nodes."
    )  # fmt: skip
    python: str = Field("python", description="Python in the image.")
    code: bool = Field(
        False, description="Run the code that lies on the host instead of the image's, which gives only the packages."
    )
    mounts: tuple[str, ...] = Field(
        (), description="More folders to mount, HOST:INSIDE or HOST:INSIDE:ro; what the work's own config names "
        "(store, cache, run, corpus, scratch) and the working folder are there anyway, under their own paths."
    )  # fmt: skip
    shm: Bytes | None = Field(
        None, description="Least size of /dev/shm. podman and docker make one of this size for each process, the "
        "others share the node's; by default all share the node's, which processes of a node need to exchange data."
    )  # fmt: skip
    environment: tuple[str, ...] = Field(
        (), description="Names of more variables that are passed on. Credentials (AWS_*, HF_TOKEN, …) and those of "
        "Slurm, NCCL, proxies and lmbatch are passed anyway, and no value ever stands on a command line."
    )  # fmt: skip
    options: tuple[str, ...] = Field(
        (), description="More options of the runtime, for example --device=/dev/infiniband."
    )

    @field_validator("mounts")
    @classmethod
    def _two_paths(cls, mounts: tuple[str, ...]) -> tuple[str, ...]:
        for text in mounts:
            if not _MOUNT.fullmatch(text):
                raise ValueError(f"{text!r} is not a mount; write HOST:INSIDE or HOST:INSIDE:ro, two absolute paths")
        return mounts

    @field_validator("environment")
    @classmethod
    def _names_alone(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for text in names:
            if not _NAME.fullmatch(text):
                name = {"name": repr(text.partition("=")[0])}
                raise PydanticCustomError(UNSHOWN, "{name} must be a variable's name alone; export its value", name)
        return names

    @model_validator(mode="after")
    def _image_is_named(self) -> Self:
        if self.runtime != "none" and not self.image:
            raise ValueError(f"runtime {self.runtime} needs `image`")
        return self
