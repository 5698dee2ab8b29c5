"""A proxy before an S3 server that answers some requests as a bad network would.

It also passes on conditional writes one at a time: the server checks and writes in two steps.
"""

import http.client
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Literal

import pytest

from pipeline.files import s3_objects

DEADLINE_S = 60


def aged(address: str, seconds: float) -> None:
    """Has the server, which runs in this process, take an object for older than it is."""
    from moto.backends import get_backend

    bucket, key = s3_objects.split(address)
    (backend,) = get_backend("s3").values()
    backend["aws"].buckets[bucket].keys[key].last_modified -= timedelta(seconds=seconds)


def forget_clients() -> None:
    """Has the next request read the environment anew."""
    from pipeline.files.s3_client import ObjectStore

    s3_objects._client_of.cache_clear()
    ObjectStore.clear_instance_cache()


def until(is_so: Callable[[], bool]) -> None:
    """Waits until something is so; fails if it never is."""
    for _ in range(DEADLINE_S * 100):
        if is_so():
            return
        Event().wait(0.01)
    pytest.fail("it never happens")


@dataclass
class Fault:
    """What happens to requests of a kind.

    Attributes:
        kind: An answer 500 or 403, a late answer, a body that ends in its midst, or no answer to
            what was done.
        request: Regular expression that the request's "METHOD /bucket/key" has to match.
        times: How many such requests are hit.
        after: How many pass before.
        seconds: How late it is.
    """

    kind: Literal["500", "403", "slow", "cut", "lost"]
    request: str
    times: int = 1
    after: int = 0
    seconds: float = 0.5


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Says nothing of clients that were killed."""


class Proxy:
    """Passes requests on to a server, but for those that a fault is for.

    Attributes:
        faults: May be added to at any time.
        requests: "METHOD /bucket/key" of all that came.
        hits: How many of them met a fault.
    """

    def __init__(self, server: tuple[str, int]) -> None:
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.hits = 0
        self.server = server
        self.conditional = Lock()
        self._lock = Lock()

    def met(self, request: str) -> Fault | None:
        """Notes a request; the fault that it meets."""
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.request, request):
                    if fault.after > 0:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    self.hits += 1
                    return fault
        return None

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serves on a free port of this machine: the address."""
        with _Server(("127.0.0.1", 0), self._handler()) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fault = proxy.met(f"{self.command} {self.path}")
                if fault is not None and fault.kind == "slow":
                    Event().wait(fault.seconds)
                if fault is not None and fault.kind in ("500", "403"):
                    self.send_response(int(fault.kind))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                is_conditional = "If-Match" in self.headers or "If-None-Match" in self.headers
                with proxy.conditional if is_conditional else nullcontext():
                    connection = http.client.HTTPConnection(*proxy.server)
                    connection.request(self.command, self.path, body, dict(self.headers))
                    found = connection.getresponse()
                    content = found.read()
                    connection.close()
                if fault is not None and fault.kind == "lost":
                    self.close_connection = True
                    return
                self.send_response(found.status)
                for name, value in found.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "server", "date"):
                        self.send_header(name, value)
                if not found.getheader("Content-Length"):
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if fault is not None and fault.kind == "cut":
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                    return
                self.wfile.write(content if self.command != "HEAD" else b"")

            def log_message(self, *_: object) -> None:
                """Says nothing."""

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        return Handler
