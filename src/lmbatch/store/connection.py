"""How to reach S3: endpoint, region and credentials from the usual variables, profile and files.

Only static keys are read here. Where there are none, the client goes on with what a cloud machine offers (web
identity, container and instance roles). Source of names and precedence: AWS SDKs and Tools Reference Guide,
"Credential provider chain" and "Service-specific endpoints".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from configparser import ConfigParser, Error
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from lmbatch.errors import StoreAccessError, StoreError

_OTHER_WAYS = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_KEY_NAMES = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


@dataclass(frozen=True, slots=True)
class Keys:
    """Static credentials; their text form shows none of them."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    def hide(self, text: str) -> str:
        """``text`` with every credential in it masked."""
        for secret in (self.secret_access_key, self.session_token, self.access_key_id):
            text = text.replace(secret, "***") if secret else text
        return text


@dataclass(frozen=True, slots=True)
class Connection:
    """``endpoint`` is None for AWS itself; ``keys`` is None where the machine's own role is to be used."""

    region: str
    endpoint: str | None
    keys: Keys | None
    virtual_hosted: bool = False

    @property
    def allow_http(self) -> bool:
        """Whether the endpoint is one without TLS."""
        return bool(self.endpoint) and str(self.endpoint).startswith("http://")


def connection_from(environ: Mapping[str, str]) -> Connection:
    """The connection that the environment asks for; keys there go before the profile's.

    Raises StoreAccessError for a profile that is not there or has no static keys, and for a custom endpoint without
    any credentials; StoreError for an endpoint that is not a plain http(s) URL.
    """
    profile = _profile(environ)
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or _endpoint(profile)
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or profile.get("region") or "us-east-1"
    keys = _keys({name: environ.get(name.upper(), "") for name in _KEY_NAMES}) or _keys(profile)
    if keys is None and not any(environ.get(name) for name in _OTHER_WAYS):
        _refuse_without_keys(environ.get("AWS_PROFILE"), endpoint)
    hosted = environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() == "true"
    return Connection(region, _checked(endpoint), keys, hosted)


def _keys(source: Mapping[str, str]) -> Keys | None:
    access, secret, token = (source.get(name, "").strip() for name in _KEY_NAMES)
    return Keys(access, secret, token or None) if access and secret else None


def _refuse_without_keys(profile: str | None, endpoint: str | None) -> None:
    if profile:
        raise StoreAccessError(
            f"the AWS profile {profile!r} holds no aws_access_key_id and aws_secret_access_key",
            remedy='for SSO, roles and credential processes: eval "$(aws configure export-credentials --format env)"',
        )
    if endpoint:
        raise StoreAccessError(
            "an S3 endpoint is set, but there are no credentials for it",
            remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        )


def _checked(endpoint: str | None) -> str | None:
    if endpoint is None:
        return None
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise StoreError(
            "the S3 endpoint (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or endpoint_url) is not a plain http(s) URL",
            remedy="write for example http://127.0.0.1:8333, without credentials in it",
        )
    return endpoint.rstrip("/")


def _profile(environ: Mapping[str, str]) -> dict[str, str]:
    """The profile's settings from both files, the credentials file's word last; ``services`` is resolved to text."""
    home = Path(environ.get("HOME") or Path.home()) / ".aws"
    config = _parsed(Path(environ.get("AWS_CONFIG_FILE") or home / "config"))
    secret = _parsed(Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials"))
    name = environ.get("AWS_PROFILE") or "default"
    section = "default" if name == "default" else f"profile {name}"
    if name != "default" and not (config.has_section(section) or secret.has_section(name)):
        raise StoreAccessError(
            f"there is no AWS profile {name!r}", remedy="check AWS_PROFILE, ~/.aws/credentials and ~/.aws/config"
        )
    settings = {**_items(config, section), **_items(secret, name)}
    services = f"services {settings.get('services', '')}"
    return {**settings, "services": config.get(services, "s3", fallback="")}


def _endpoint(profile: Mapping[str, str]) -> str | None:
    for line in profile.get("services", "").splitlines():  # the nested block of a `[services NAME]` section
        name, _, value = line.partition("=")
        if name.strip() == "endpoint_url":
            return value.strip()
    return profile.get("endpoint_url") or None


def _items(parser: ConfigParser, section: str) -> dict[str, str]:
    return dict(parser.items(section)) if parser.has_section(section) else {}


def _parsed(path: Path) -> ConfigParser:
    # No section is configparser's "default section": AWS's own [default] is a profile like any other.
    parser = ConfigParser(interpolation=None, default_section="\0", strict=False)
    try:
        parser.read(os.fspath(path), encoding="utf-8")
    except (Error, UnicodeDecodeError):  # the text of the error may quote a line with a secret
        raise StoreAccessError(f"{path}: not a file of AWS profiles", remedy="correct it, or move it away") from None
    return parser
