"""`kfp.Client` with a time limit on every call, and without its five attempts to say hello."""

import json
import logging
from typing import Any

import kfp
import kfp_server_api

from graftline.errors import GraftlineError


class Client(kfp.Client):  # type: ignore[misc]
    """A `kfp.Client` whose calls end.

    Attributes:
        api: The HTTP client below it, with address and credentials.
    """

    def __init__(self, **options: Any) -> None:
        self._healthy = False
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # what fails is said once, by us
        super().__init__(**options)
        self.api: kfp_server_api.ApiClient = self._run_api.api_client

    def _load_config(self, *args: Any, **options: Any) -> Any:
        """Finds address and credentials as kfp does, and mends what goes wrong with kubectl's configuration.

        The Kubernetes client refreshes its token before every call, and puts its own address, without the path to
        Kubeflow Pipelines, in the place of kfp's, and its own hook in the place of any other. And kfp goes on to
        localhost when there is nothing it can load.

        Raises:
            GraftlineError: kubectl's configuration names no cluster.
        """
        config = super()._load_config(*args, **options)
        given = args[0] if args else options.get("host")
        if not given and config.host == kfp_server_api.Configuration().host:
            raise GraftlineError("kubectl's configuration has no such context, or none that is current: give --context")
        host, refresh = config.host.rstrip("/"), config.refresh_api_key_hook

        def keep_address(configuration: Any) -> None:
            refresh(configuration)
            configuration.host, configuration.refresh_api_key_hook = host, keep_address

        config.host = host
        config.refresh_api_key_hook = keep_address if refresh else None
        return config

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Asks the server for its state, once: kfp itself tries five times, five seconds apart.

        Raises:
            GraftlineError: The answer is not JSON: a page to log in at, for example.
        """
        response = self._healthz_api.healthz_service_get_healthz(_request_timeout=15, _preload_content=False)
        try:
            answer = json.loads(response.data)
        except ValueError:
            host = self._healthz_api.api_client.configuration.host
            raise GraftlineError(
                f"{host} answers with a page instead of data: log in there with a browser and put its cookies into "
                "GRAFTLINE_COOKIES, or give a token"
            ) from None
        self._healthy = True
        return kfp_server_api.V2beta1GetHealthzResponse(multi_user=answer.get("multi_user"))

    def greet(self, seconds: int) -> None:
        """Makes sure that the server is there and knows us, and limits all calls from here on to so many seconds."""
        if not self._healthy:
            self.get_kfp_healthz()
        send = self.api.rest_client.request

        def request(*args: Any, _request_timeout: Any = None, **values: Any) -> Any:
            return send(*args, _request_timeout=_request_timeout or seconds, **values)

        self.api.rest_client.request = request

    def pod_log(self, pod: str, namespace: str, run_id: str) -> str:
        """Reads a pod's log as the cluster's user interface does: the API itself has no logs."""
        query = {"podname": pod, "runid": run_id} | ({"podnamespace": namespace} if namespace else {})
        response = self.api.call_api(
            "/k8s/pod/logs",
            "GET",
            query_params=list(query.items()),
            header_params={"Accept": "text/plain"},
            auth_settings=["Bearer"],
            _preload_content=False,
            _return_http_data_only=True,
        )
        return str(response.data.decode(errors="replace"))
