from pathlib import Path

import pytest

from lmbatch.errors import StoreAccessError, StoreError
from lmbatch.store.connection import Keys, connection_from

ENV = {"AWS_ACCESS_KEY_ID": "AKENV", "AWS_SECRET_ACCESS_KEY": "env-secret"}
CREDENTIALS = """
[default]
aws_access_key_id = AKDEFAULT
aws_secret_access_key = default%secret
[lab]
aws_access_key_id=AKLAB
aws_secret_access_key=lab-secret
aws_session_token=lab-token
"""
CONFIG = """
[default]
region = eu-west-1
[profile lab]
region = cn-north-1
endpoint_url = http://lab:8333/
[profile nested]
aws_access_key_id = AKNESTED
aws_secret_access_key = nested-secret
services = inner
[services inner]
s3 =
  endpoint_url = https://nested:9000
  addressing_style = path
[profile sso]
sso_session = corp
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(CREDENTIALS)
    (tmp_path / ".aws" / "config").write_text(CONFIG)
    return {"HOME": str(tmp_path)}


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "nowhere")}


def test_the_environment_alone(nowhere) -> None:
    connection = connection_from({**nowhere, **ENV, "AWS_SESSION_TOKEN": "tok", "AWS_REGION": "r1"})
    assert connection.keys == Keys("AKENV", "env-secret", "tok")
    assert (connection.region, connection.endpoint, connection.virtual_hosted) == ("r1", None, False)


def test_the_endpoint_of_s3_goes_before_the_general_one(nowhere) -> None:
    environ = {**nowhere, **ENV, "AWS_ENDPOINT_URL": "https://all", "AWS_ENDPOINT_URL_S3": "http://s3:1/"}
    connection = connection_from(environ)
    assert (connection.endpoint, connection.allow_http) == ("http://s3:1", True)
    assert connection_from({**nowhere, **ENV, "AWS_ENDPOINT_URL": "https://all"}).allow_http is False


def test_regions_in_their_order(nowhere, home) -> None:
    assert connection_from({**nowhere, **ENV}).region == "us-east-1"
    assert connection_from({**home, **ENV}).region == "eu-west-1"
    assert connection_from({**home, **ENV, "AWS_DEFAULT_REGION": "r2"}).region == "r2"
    assert connection_from({**home, **ENV, "AWS_DEFAULT_REGION": "r2", "AWS_REGION": "r1"}).region == "r1"


def test_the_default_profile(home) -> None:
    assert connection_from(home).keys == Keys("AKDEFAULT", "default%secret")


def test_a_named_profile_over_both_files(home) -> None:
    connection = connection_from({**home, "AWS_PROFILE": "lab"})
    assert connection.keys == Keys("AKLAB", "lab-secret", "lab-token")
    assert (connection.region, connection.endpoint) == ("cn-north-1", "http://lab:8333")


def test_an_endpoint_of_a_services_section(home) -> None:
    connection = connection_from({**home, "AWS_PROFILE": "nested"})
    assert (connection.endpoint, connection.keys) == ("https://nested:9000", Keys("AKNESTED", "nested-secret"))


def test_keys_of_the_environment_are_not_mixed_with_the_profiles_token(home) -> None:
    assert connection_from({**home, **ENV, "AWS_PROFILE": "lab"}).keys == Keys("AKENV", "env-secret", None)
    assert connection_from({**home, "AWS_PROFILE": "lab", "AWS_SESSION_TOKEN": "stray"}).keys == Keys(
        "AKLAB", "lab-secret", "lab-token"
    )


def test_files_at_other_places(home, tmp_path: Path) -> None:
    moved = {
        "AWS_SHARED_CREDENTIALS_FILE": f"{tmp_path}/.aws/credentials",
        "AWS_CONFIG_FILE": f"{tmp_path}/.aws/config",
    }
    assert connection_from({**moved, "HOME": "/nowhere", "AWS_PROFILE": "lab"}).keys == Keys(
        "AKLAB", "lab-secret", "lab-token"
    )


@pytest.mark.parametrize(("profile", "message"), [("nope", "no AWS profile 'nope'"), ("sso", "holds no aws_access")])
def test_unusable_profiles_are_named(home, profile: str, message: str) -> None:
    with pytest.raises(StoreAccessError, match=message):
        connection_from({**home, "AWS_PROFILE": profile})


def test_an_endpoint_without_credentials_is_refused_before_anything_is_sent(nowhere) -> None:
    with pytest.raises(StoreAccessError, match="no credentials") as error:
        connection_from({**nowhere, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    assert "AWS_PROFILE" in str(error.value.remedy)
    assert (
        connection_from({**nowhere, "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_SKIP_SIGNATURE": "true"}).keys
        is None
    )
    assert connection_from(nowhere).keys is None  # AWS itself: the machine may have a role


@pytest.mark.parametrize("endpoint", ["http://u:hush@h", "127.0.0.1:8333", "ftp://h", "http://", "http://h?sig=hush"])
def test_an_endpoint_that_is_no_plain_url_is_refused_and_not_repeated(nowhere, endpoint: str) -> None:
    with pytest.raises(StoreError, match="not a plain") as error:
        connection_from({**nowhere, **ENV, "AWS_ENDPOINT_URL": endpoint})
    assert "hush" not in str(error.value)


def test_a_broken_file_is_named_and_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("aws_secret_access_key = hush\n")
    with pytest.raises(StoreAccessError, match="credentials: not a file of AWS profiles") as error:
        connection_from({"HOME": str(tmp_path), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")})
    assert "hush" not in str(error.value)
    assert error.value.__cause__ is None


def test_credentials_have_no_text_form() -> None:
    keys = Keys("AKID", "the-secret", "the-token")
    assert not any(value in repr(keys) for value in ("AKID", "the-secret", "the-token"))
    assert keys.hide("AKID the-secret, the-token!") == "*** ***, ***!"
