"""What an FL-API server answers when it will not or can not: one error class per HTTP status.

Promise: the message becomes the `detail` of the answer, so it names what is wrong and what to do,
and never holds a presigned URL, a cohort query or a credential. The statuses are those of FLIP's
adapters where these are clear (400 a bad app or config, 404 an unknown job, 409 busy, 422 a body
that breaks the contract, 500 the runtime).
"""

from __future__ import annotations

from typing import ClassVar

from service.errors import ServiceError


class FlApiError(ServiceError):
    """An answer that is not 200. `status` is the HTTP status, the message the `detail`."""

    status: ClassVar[int] = 500
    code = "refused"


class BadApp(FlApiError):
    """The app or its configuration can't be run as it is."""

    status = 400
    code = "bad_app"


class NoSuchRun(FlApiError):
    """This net knows no such run, or the run has no such thing."""

    status = 404
    code = "no_such_run"


class Busy(FlApiError):
    """Not now: something about the same app or run is still in progress."""

    status = 409
    code = "busy"


class TooLarge(FlApiError):
    """More bytes or files than this server takes."""

    status = 413
    code = "too_large"


class BadBody(FlApiError):
    """The request itself breaks the contract."""

    status = 422
    code = "bad_body"


class RuntimeFailed(FlApiError):
    """The runtime or a download failed; the same call may work later."""

    status = 500
    code = "runtime_failed"
