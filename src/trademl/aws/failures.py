"""What AWS and the way to it can answer instead of a result, each turned into one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trademl.errors import CloudError

SETUP = "docs/sagemaker.md lists what to set up"
_CREDENTIALS = "log in again (aws sso login), or set AWS_PROFILE or AWS_ACCESS_KEY_ID"
_REFUSED = f"give whoever runs trademl this permission; {SETUP}"

# Code of an answer -> what to do about it. Throttling comes here only after botocore's retries.
ADVICE = {
    "AccessDenied": _REFUSED,
    "AccessDeniedException": _REFUSED,
    "UnauthorizedOperation": _REFUSED,
    "403": _REFUSED,
    "ExpiredToken": f"the credentials have expired: {_CREDENTIALS}",
    "ExpiredTokenException": f"the credentials have expired: {_CREDENTIALS}",
    "InvalidAccessKeyId": f"the access key is not known: {_CREDENTIALS}",
    "InvalidClientTokenId": f"the access key is not known: {_CREDENTIALS}",
    "UnrecognizedClientException": f"the access key is not known: {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key is not the access key's: {_CREDENTIALS}",
    "InvalidSignatureException": f"the secret key or this machine's clock is wrong: {_CREDENTIALS}",
    "AuthFailure": _CREDENTIALS,
    "OptInRequired": "the account has not enabled this region: enable it, or choose another",
    "NoSuchBucket": "make the bucket, or set aws.bucket to one that exists",
    "ThrottlingException": "AWS asks for fewer calls: wait a minute and run again",
    "Throttling": "AWS asks for fewer calls: wait a minute and run again",
    "SlowDown": "AWS asks for fewer calls: wait a minute and run again",
    "RequestLimitExceeded": "AWS asks for fewer calls: wait a minute and run again",
    "ResourceNotFoundException": "there is no such thing in this region: correct its ARN or name",
    "DecryptionFailure": "the key of the secret cannot be used: give kms:Decrypt on it",
    "ResourceInUse": "another job has this name: wait a moment and run again",
    "ValidationException": "correct [aws] of the strategy file, or the tuning job",
    "ServiceUnavailable": "the service is down for the moment: run again later",
    "InternalFailure": "the service failed: run again later",
}
THROTTLED = {"ThrottlingException", "Throttling", "RequestLimitExceeded", "SlowDown"}
UNAVAILABLE = {"ServiceUnavailable", "InternalFailure", "InternalError", "500", "503"}


@contextmanager
def aws_errors(doing: str) -> Iterator[None]:
    """Turn what botocore raises inside the block into a `CloudError` of one line.

    Parameters
    ----------
    doing : str
        What was tried, such as ``starting trademl-0123456789ab``.
    """
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise CloudError(f"{doing}: {_answer(error)}") from error
    except S3UploadFailedError as error:  # boto3 keeps the answer only as what went before
        cause = error.__context__
        found = _answer(cause) if isinstance(cause, ClientError) else str(error)
        raise CloudError(f"{doing}: {found}") from error
    except BotoCoreError as error:
        raise CloudError(f"{doing}: {_trouble(error)}") from error


def code_of(error: Any) -> str:
    """Return the code of a botocore ``ClientError``."""
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


def is_not_found(error: Any) -> bool:
    """Return whether a description was refused because there is no such job.

    SageMaker says ``ValidationException: Requested resource not found`` for training jobs.
    """
    code, message = code_of(error), str(error.response["Error"].get("Message", "")).lower()
    is_said = "not found" in message or "could not find" in message
    return code == "ResourceNotFound" or (code == "ValidationException" and is_said)


def is_passing(error: Any) -> bool:
    """Return whether the same call may well succeed in a moment."""
    return code_of(error) in THROTTLED | UNAVAILABLE


def _answer(error: Any) -> str:
    code, operation = code_of(error), error.operation_name
    message = str(error.response.get("Error", {}).get("Message", "")).strip()
    if code == "ResourceLimitExceeded":
        return _quota(message)
    if code == "404" or code == "NoSuchKey":
        return f"{operation}: there is no such object or bucket"
    if advice := ADVICE.get(code):
        return f"{operation} answered {code}: {_first_line(message)}{advice}"
    return f"{operation} answered {code}, which trademl does not know: {message or 'no message'}"


def _first_line(message: str) -> str:
    is_page = message.startswith("<")  # a proxy's HTML is no message
    return "" if is_page or not message else f"{' '.join(message.split()).rstrip('.')}; "


def _quota(message: str) -> str:
    """Return the advice for a quota, by its name as Service Quotas lists it."""
    found = re.search(r"service limit '([^']+)' is (\d+)", message)
    if not found:
        return f"a quota is used up: {message}"
    return (
        f"the quota '{found[1]}' is {found[2]}: ask for more at Service Quotas > Amazon SageMaker, "
        "or choose another aws.instance_type, fewer machines, or a lower MaxParallelTrainingJobs"
    )


def _trouble(error: Any) -> str:
    """Return what keeps a call from being made or answered at all."""
    from botocore import exceptions as known

    if isinstance(error, known.NoCredentialsError | known.PartialCredentialsError):
        return f"no AWS credentials were found: {_CREDENTIALS}"
    if isinstance(error, known.TokenRetrievalError | known.CredentialRetrievalError):
        return f"the credentials cannot be had ({error}): {_CREDENTIALS}"
    if isinstance(error, known.ProfileNotFound):
        return f"{error}: correct AWS_PROFILE"
    if isinstance(error, known.HTTPClientError | known.ConnectionError):
        return f"{error}: check aws.region and the network"
    if isinstance(error, known.ParamValidationError):
        return " ".join(str(error).split())
    return str(error)
