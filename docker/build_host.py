"""What a build borrows from this machine, read-only and only while it runs: pip's configuration, certificates, wheels.

Found where pip itself looks (its environment variables and configuration files), so that a build reaches the packages
that `make venv` reaches, through whatever mirror and whatever private certificate. Nothing of it is in an image.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

CA_INSIDE = "/run/secrets/ca.crt"
_SYSTEM_CA = Path("/etc/ssl/certs/ca-certificates.crt")
# What decides from where packages come; a host's other options (a target folder, a constraint) are its own affair.
_OPTIONS = (
    "index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "timeout", "retries",
)  # fmt: skip
_CA_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class Borrowed:
    """``pip_conf`` is the text of a configuration file; ``folders`` are read under the same paths inside."""

    pip_conf: str
    ca: Path | None
    folders: tuple[Path, ...]


def borrow(environ: Mapping[str, str], home: Path) -> Borrowed:
    """From the environment and the files of pip's configuration."""
    options = pip_options(config_files(environ, home), environ)
    ca = ca_bundle(options, environ)
    return Borrowed(render_pip_conf(options, with_ca=ca is not None), ca, local_folders(options))


def config_files(environ: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """Where pip looks, from what counts least to what counts most (pip's user guide, "Configuration")."""
    system = [Path(each) / "pip/pip.conf" for each in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if each]
    own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf"
    named = environ.get("PIP_CONFIG_FILE")
    return (*system, Path("/etc/pip.conf"), home / ".pip/pip.conf", own, *([Path(named)] if named else []))


def pip_options(files: Iterable[Path], environ: Mapping[str, str]) -> dict[str, str]:
    """Options of pip for all commands and for `install`, later files and then PIP_* variables win."""
    options: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        parser.read(file, encoding="utf-8")
        for section in ("global", "install"):
            if parser.has_section(section):
                options |= dict(parser.items(section))
    options |= {name[4:].lower().replace("_", "-"): value for name, value in environ.items() if name.startswith("PIP_")}
    return {name.replace("_", "-"): value for name, value in options.items() if value.strip()}


def ca_bundle(options: Mapping[str, str], environ: Mapping[str, str]) -> Path | None:
    """The certificates that this machine trusts, as one file."""
    named = [options.get("cert"), *(environ.get(name) for name in _CA_VARIABLES), str(_SYSTEM_CA)]
    return next((Path(each) for each in named if each and Path(each).is_file()), None)


def render_pip_conf(options: Mapping[str, str], *, with_ca: bool) -> str:
    """The configuration that the build reads, with the certificates where the build finds them."""
    kept = {name: " ".join(options[name].split()) for name in _OPTIONS if name in options}
    if with_ca:
        kept["cert"] = CA_INSIDE
    return "\n".join(["[global]", *(f"{name} = {value}" for name, value in kept.items()), ""])


def local_folders(options: Mapping[str, str]) -> tuple[Path, ...]:
    """Folders of this machine that serve as indexes or hold wheels; the files of one called `simple` lie beside it."""
    words = " ".join(options.get(name, "") for name in ("index-url", "extra-index-url", "find-links")).split()
    paths = {Path(unquote(urlsplit(word).path)) for word in words if word.startswith(("file://", "/"))}
    roots = {path.parent if path.name == "simple" else path for path in paths if path.is_dir()}
    return tuple(sorted(roots))
