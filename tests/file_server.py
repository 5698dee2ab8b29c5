"""A web server of this machine that gives files, and cuts connections when told to."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class FileServer:
    """What is served, and how.

    Attributes:
        files: Contents by path.
        cuts: After how many bytes each next body ends too early.
        has_ranges: Whether it gives a part of a file where one is asked for.
        requests: "METHOD path range" of all that came.
        commit: As the Hugging Face hub tells of a repository.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    has_ranges: bool = True
    requests: list[str] = field(default_factory=list)
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    etags: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, content: bytes) -> str:
        """Serves a file: its SHA-256, which is its ETag too."""
        self.files[path] = content
        self.etags[path] = hashlib.sha256(content).hexdigest()
        return self.etags[path]

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serves on a free port: the address."""
        with ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) as server:
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        files = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                wanted = self.headers.get("Range", "")
                files.requests.append(f"{self.command} {self.path} {wanted}".strip())
                content = files.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                start = int(wanted.removeprefix("bytes=").partition("-")[0] or 0)
                if start and files.has_ranges:
                    if start >= len(content):
                        self.send_error(416)
                        return
                    self.send_response(206)
                    whole = len(content)
                    self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
                    content = content[start:]
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", f'"{files.etags[self.path]}"')
                self.send_header("X-Repo-Commit", files.commit)
                self.end_headers()
                if self.command == "GET":
                    end = files.cuts.pop(0) if files.cuts else len(content)
                    self.wfile.write(content[:end])

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

            do_GET = do_HEAD = answer

        return Handler
