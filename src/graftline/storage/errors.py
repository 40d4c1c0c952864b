"""What boto3 and the file system say when a store refuses, turned into one line that names the remedy."""

import contextlib
import os
from collections.abc import Iterator

from graftline.errors import StoreError
from graftline.storage.environment import EMBEDDED

_BAD_CREDENTIALS = frozenset(
    {
        "403",
        "AccessDenied",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
)


@contextlib.contextmanager
def clear_errors(url: str, what: str = "store") -> Iterator[None]:
    """Turns every error of the S3 libraries and the file system in its block into a StoreError.

    Args:
        url: The store or the source in question.
        what: "store" or "source".

    Raises:
        StoreError: One line that names the store, the reason and the remedy.
    """
    if not url.startswith("s3://"):
        with _clear_folder_errors(url):
            yield
        return
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise StoreError(_refusal(f"the {what} {url}", error)) from error
    except (BotoCoreError, Boto3Error, ResponseParserError, ValueError, OSError) as error:
        raise StoreError(_failure(f"the {what} {url}", error)) from error


@contextlib.contextmanager
def _clear_folder_errors(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"the store {url} failed: {_one_line(error)}") from error


def endpoint() -> str:
    """Returns the S3 endpoint that the standard AWS variables name, "AWS" when they name none."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"


def _refusal(name: str, error: Exception) -> str:
    """Says why S3 refused; `name` is what it refused, like "the store s3://bucket"."""
    code = str(error.response["Error"].get("Code", ""))  # type: ignore[attr-defined]
    if code in _BAD_CREDENTIALS:
        return (
            f"{name} at {endpoint()} refused the credentials ({code}): "
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do with the bucket"
        )
    if code == "NoSuchBucket":
        return f"the bucket of {name} does not exist at {endpoint()}: {_bucket_remedy(name)}"
    return f"{name} at {endpoint()} failed: {_one_line(error)}"


def _bucket_remedy(name: str) -> str:
    if name.startswith("the store"):
        return "create it or correct GRAFTLINE_STORE"
    if EMBEDDED in os.environ:
        return "that is this workspace's embedded store; set GRAFTLINE_STORE to read from an S3 of your own"
    return "correct its name or AWS_ENDPOINT_URL_S3"


def _failure(name: str, error: Exception) -> str:
    from botocore import exceptions as aws

    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return (
            f"no credentials for {name}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE): "
            f"{_one_line(error)}"
        )
    if isinstance(error, aws.ProfileNotFound):
        return f"no credentials for {name}: {_one_line(error)}: correct AWS_PROFILE or unset it"
    if isinstance(error, aws.HTTPClientError | aws.ConnectionError):
        return f"{name} is unreachable at {endpoint()}: check AWS_ENDPOINT_URL_S3 and the network: {_one_line(error)}"
    return f"{name} failed: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
