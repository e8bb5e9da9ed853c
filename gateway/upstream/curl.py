"""libcurl as the way to the origin, within Tornado's client for it: its multi handle stays, its driving is replaced.

What replaces it is in carrier.py, and says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pycurl
from tornado.curl_httpclient import CurlAsyncHTTPClient
from tornado.ioloop import PeriodicCallback

from gateway.upstream.carrier import CurlCarrier
from gateway.upstream.timeouts import LOOK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.platform.poller import Poller
    from gateway.upstream.options import CurlOptions
    from gateway.upstream.transfers import Engine


class CurlRelay(CurlAsyncHTTPClient):
    """Carries transfers over one multi handle. Belongs to the running loop; whoever makes it calls `close()`."""

    def initialize(  # type: ignore[override]
        self, poller: Poller, options: CurlOptions, alarm: Callable[[str], None], before: Callable[[], object]
    ) -> None:
        """Take what watches sockets, the options, and whom to tell when libcurl had to be set up again.

        `before` is called ahead of whatever may send something.
        """
        super().initialize(max_clients=0)
        self._forget_tornados_timer()
        self._is_taken = False  # Tornado's multi is the first one
        self.carrier = CurlCarrier(poller, options, self._next_multi, alarm, before)
        self._look = PeriodicCallback(self.carrier.look, LOOK_SECONDS * 1000)
        self._look.start()

    @property
    def engine(self) -> Engine:
        """What opens transfers."""
        return self.carrier.engine

    def _forget_tornados_timer(self) -> None:
        """Cancel the call that Tornado has scheduled: it would take the ends of transfers, and repeat itself."""
        if self._timeout is not None:
            self.io_loop.remove_timeout(self._timeout)
            self._timeout = None

    def _next_multi(self) -> Any:  # noqa: ANN401 (pycurl's class, which is not typed)
        if self._is_taken:
            self._multi = pycurl.CurlMulti()
        self._is_taken = True
        return self._multi

    def count_connections(self) -> int:
        """Return how many connections to origins are open, idle ones too; the kernel is asked about each."""
        return self.carrier.sockets.count_open()

    def close(self) -> None:
        """End every transfer without a word and let go of libcurl."""
        self._look.stop()
        self.carrier.close_handles()
        super().close()
        self.carrier.close()
