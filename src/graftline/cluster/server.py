"""The way to a Kubeflow Pipelines cluster: where it is, who we are, and what its errors mean.

Secrets come from the environment or from files, never from the command line, where other users could read them.
"""

import contextlib
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from graftline.errors import GraftlineError
from graftline.options import Options, declared, read
from graftline.workspace import expanded

_ANSWER_WITHIN_SECONDS = 60
# The gateway or the server is not there just now; the same call may succeed later.
_PASSING = frozenset({429, 500, 502, 503, 504})


class ClusterError(GraftlineError):
    """The cluster refuses, or has not what was asked for."""


class ClusterAwayError(ClusterError):
    """The cluster does not answer just now."""


class Cluster:
    """An open connection.

    Attributes:
        client: The `kfp.Client`.
        host: Address of the cluster's API.
        namespace: Namespace of runs and schedules; None on clusters for a single user.
    """

    def __init__(self, client: Any, host: str, namespace: str | None) -> None:
        self.client, self.host, self.namespace = client, host, namespace

    def call(self, function: Callable[..., Any], *args: Any, missing: str = "", **options: Any) -> Any:
        """Calls a method of the client.

        Args:
            function: The method.
            *args: Its arguments.
            missing: What to say when the cluster does not find what the arguments name.
            **options: Its keyword arguments.

        Raises:
            ClusterAwayError: The cluster does not answer just now.
            ClusterError: The cluster refuses.
        """
        # kfp prints links and warns of versions; what there is to say, the commands say.
        with clear_errors(self.host, missing), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return function(*args, **options)

    def pages(self, function: Callable[..., Any], entries: str, **options: Any) -> Iterator[Any]:
        """Yields what a listing method has, page after page.

        Args:
            function: The method.
            entries: Name of the attribute that holds a page's entries.
            **options: The method's keyword arguments.
        """
        token = ""
        while True:
            page = self.call(function, page_token=token, page_size=100, **options)
            yield from getattr(page, entries) or ()
            token = page.next_page_token or ""
            if not token:
                return

    def link(self, kind: str, identity: str) -> str:
        """Returns the page of a run or a schedule in the cluster's user interface."""
        address = os.environ.get("KF_PIPELINES_UI_ENDPOINT") or self.host
        return f"{address.rstrip('/')}/#/{kind}/details/{identity}"


def connect(*, host: str = "", namespace: str = "", context: str = "", token_file: str = "", ca: str = "") -> Cluster:
    """Opens a connection to a cluster.

    Args:
        host: Address of Kubeflow Pipelines, like https://kubeflow.example.com/pipeline; empty means `GRAFTLINE_HOST`,
            `KF_PIPELINES_ENDPOINT`, the cluster around this pod, or that of kubectl's configuration, in this order.
        namespace: Your namespace on a cluster for several users; empty means `GRAFTLINE_NAMESPACE`.
        context: Context of kubectl's configuration; empty means its current one.
        token_file: File with a bearer token, such as a mounted service account's, read again for every call; empty
            means `GRAFTLINE_TOKEN_FILE`. `GRAFTLINE_TOKEN` and `GRAFTLINE_COOKIES` hold a token or cookies themselves.
        ca: File with the certificate authority of the server; empty means `GRAFTLINE_CA`, or the usual ones.

    Raises:
        ClusterError: There is no such server, or it refuses; one line says what to do.
    """
    host = host or os.environ.get("GRAFTLINE_HOST") or os.environ.get("KF_PIPELINES_ENDPOINT") or ""
    namespace = namespace or os.environ.get("GRAFTLINE_NAMESPACE", "")
    if not host:
        _check_surroundings(context)
    elif not host.startswith(("http://", "https://")):
        host = f"https://{host}"
    options = {
        "host": host or None,
        "existing_token": os.environ.get("GRAFTLINE_TOKEN") or None,
        "cookies": os.environ.get("GRAFTLINE_COOKIES") or None,
        "ssl_ca_cert": _file("ca", ca or os.environ.get("GRAFTLINE_CA", "")),
        "kube_context": context or None,
    }
    return _open(options, _file("token-file", token_file or os.environ.get("GRAFTLINE_TOKEN_FILE", "")), namespace)


CONNECTION = declared(connect)


def connected(options: Options) -> Cluster:
    """Opens a connection with those of a command's options that `connect` declares.

    Raises:
        ClusterError: As `connect`.
    """
    return connect(**{name: read(options, name, str) for name in CONNECTION})


def _open(options: dict[str, Any], token_file: str | None, namespace: str) -> Cluster:
    from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

    from graftline.cluster.client import Client

    credentials = ServiceAccountTokenVolumeCredentials(token_file) if token_file else None
    host = options["host"] or "the cluster"
    nothing = "there is no Kubeflow Pipelines; Kubeflow's gateway has it below /pipeline"
    with clear_errors(host, nothing), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        client = Client(**options, credentials=credentials)
        client.greet(_ANSWER_WITHIN_SECONDS)
        namespace = namespace or client.get_user_namespace()
    return Cluster(client, client.api.configuration.host.rstrip("/"), namespace or None)


def _check_surroundings(context: str) -> None:
    """Makes sure that there is a place to learn the cluster's address from: kfp would go on without one."""
    configuration = os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep)
    found = any(expanded(path).is_file() for path in configuration)
    if not found and (context or "KUBERNETES_SERVICE_HOST" not in os.environ):
        raise ClusterError(
            "no cluster is named: give --host, set GRAFTLINE_HOST, or set up kubectl (there is no ~/.kube/config)"
        )


def _file(option: str, path: str) -> str | None:
    if path and not expanded(path).is_file():
        raise ClusterError(f"--{option}: the file {path} does not exist")
    return str(expanded(path)) if path else None


@contextlib.contextmanager
def clear_errors(host: str, missing: str = "") -> Iterator[None]:
    """Turns what kfp and its HTTP library raise into one line each.

    Args:
        host: The server, for messages.
        missing: What to say when it does not find something.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        if error.status in _PASSING:
            raise ClusterAwayError(f"{host} cannot answer just now ({error.status}): {_said(error)}") from error
        raise ClusterError(_refusal(host, error, missing)) from error
    except HTTPError as error:
        reason = str(getattr(error, "reason", None) or error)
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            raise ClusterError(f"{host} has a certificate of an unknown authority: name its file with --ca") from error
        raise ClusterAwayError(f"{host} does not answer: {_plain(reason)}") from error


def _refusal(host: str, error: Any, missing: str) -> str:
    if error.status == 401:
        return f"{host} does not know you (401): set GRAFTLINE_TOKEN or GRAFTLINE_COOKIES, or give --token-file"
    if error.status == 403:
        return f"{host} does not let you do that (403): {_said(error)}; is --namespace yours?"
    if error.status == 404:
        return f"{host}: {missing or _said(error)} (404)"
    return f"{host} refuses ({error.status}): {_said(error)}"


def _said(error: Any) -> str:
    """Returns the message in an error's body, as Kubeflow Pipelines words it, or the status line."""
    try:
        body = json.loads(error.body or "")
        message = body.get("message") or body.get("error_message") or body.get("error")
    except (ValueError, AttributeError):
        message = ""
    return " ".join(str(message or error.reason or "no reason given").split())[:300]


def _plain(reason: str) -> str:
    """Cuts the names of Python objects out of an HTTP library's message."""
    return re.sub(r"^\w+\([^)]*\): ", "", reason)
