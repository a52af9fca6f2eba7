import pytest
from obstore import exceptions

from lmbatch.errors import ObjectNotFoundError, StoreAccessError, StoreError, StoreFullError
from lmbatch.store.failure import TruncatedBodyError, classify, from_request, store_error


def answer(status: int, code: str = "", message: str = "") -> str:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>" if code else ""
    return (
        f"Generic: Error performing PUT http://h/b/k in 1ms - Server returned non-2xx status code: {status} X: {body}"
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError(answer(404, "NoSuchKey")), "missing"),
        (FileNotFoundError(answer(404, "NoSuchBucket")), "bucket"),
        (exceptions.GenericError(answer(404, "NoSuchBucket")), "bucket"),
        (FileNotFoundError(answer(404, "NoSuchUpload")), "passing"),
        (exceptions.AlreadyExistsError("x"), "exists"),
        (exceptions.PreconditionError("x"), "changed"),
        (exceptions.PermissionDeniedError(answer(403)), "access"),
        (exceptions.UnauthenticatedError(answer(401)), "access"),
        (exceptions.GenericError(answer(403, "SignatureDoesNotMatch")), "access"),
        (exceptions.PermissionDeniedError(answer(403, "RequestTimeTooSkewed")), "clock"),
        (exceptions.GenericError(answer(416, "InvalidRange")), "range"),
        (exceptions.GenericError(answer(507)), "full"),
        (exceptions.GenericError(answer(500, "XMinioStorageFull", "Storage backend has reached its limit")), "full"),
        (exceptions.GenericError(answer(500, "InternalError", "write: no space left on device")), "full"),
        (exceptions.GenericError(answer(403, "QuotaExceeded", "bucket quota")), "access"),
        (exceptions.GenericError(answer(400, "KeyTooLongError")), "lasting"),
        (exceptions.GenericError(answer(501, "NotImplemented")), "lasting"),
        (exceptions.GenericError(answer(301, "PermanentRedirect")), "lasting"),
        (exceptions.GenericError(answer(409, "ConditionalRequestConflict")), "passing"),
        (exceptions.GenericError(answer(429, "TooManyRequests")), "passing"),
        (exceptions.GenericError(answer(500, "InternalError")), "passing"),
        (exceptions.GenericError(answer(503, "SlowDown")), "passing"),
        (exceptions.GenericError("HTTP error: error sending request"), "passing"),
        (TruncatedBodyError("the body ended"), "passing"),
    ],
)
def test_kinds(error: Exception, kind: str) -> None:
    failure = classify(error)
    assert failure.kind == kind
    assert failure.passing == (kind in ("passing", "full"))
    assert from_request(error)


def test_a_mistake_of_ours_is_no_reason_to_ask_again() -> None:
    assert not from_request(TypeError("x"))
    assert not from_request(StoreError("x"))


def test_the_reason_is_the_servers_or_the_deepest() -> None:
    assert classify(exceptions.GenericError(answer(503, "SlowDown", "wait"))).reason == "503 SlowDown: wait"
    deep = 'E: Error performing GET http://h in 1s - HTTP error: sending\n\nDebug {\n message: "Connection refused",\n}'
    assert classify(exceptions.GenericError(deep)).reason == "HTTP error: sending (Connection refused)"
    assert (
        classify(exceptions.PermissionDeniedError(answer(403))).reason == "Server returned non-2xx status code: 403 X"
    )
    assert classify(exceptions.GenericError(answer(403, "X", "the server&#39;s"))).reason == "403 X: the server's"
    assert classify(exceptions.GenericError("")).reason == "GenericError"


@pytest.mark.parametrize(
    ("status", "kind", "remedy"),
    [(404, ObjectNotFoundError, "name"), (403, StoreAccessError, "AWS_SECRET"), (507, StoreFullError, "make room"),
     (500, StoreError, "server's log"), (412, StoreError, "replaced"), (400, StoreError, "endpoint")],
)  # fmt: skip
def test_each_kind_has_its_error_and_remedy(status: int, kind: type[StoreError], remedy: str) -> None:
    failure = classify(exceptions.GenericError(answer(status, "Code", "said")))
    error = store_error(failure, "write", "s3://b/k", failure.reason)
    assert type(error) is kind
    assert "s3://b/k" in str(error)
    assert remedy in str(error.remedy)
