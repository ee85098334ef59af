"""`make serve`: show the built book on this machine only."""

from __future__ import annotations

import functools
import os
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from .problems import Misuse, Problem, finish

HOST = "127.0.0.1"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # the base class calls it with these names
        """Say nothing of single requests."""


def server(html: Path, port: int) -> ThreadingHTTPServer:
    """A server for the pages in `html`; port 0 takes a free one.

    Raises:
        Problem: there is no book, or the port is taken.
    """
    if not (html / "index.html").exists():
        raise Problem("there is no book in build/html yet: run make book first")
    try:
        return ThreadingHTTPServer((HOST, port), functools.partial(_Quiet, directory=str(html)))
    except OSError as error:
        raise Problem(f"PORT: {port} cannot be used ({error.strerror}); name another: make serve PORT=8001") from error


def main() -> None:
    """Serve the book of this project until Ctrl-C."""
    wanted = os.environ.get("PORT") or "8000"
    if not wanted.isdecimal() or not 0 <= int(wanted) < 2**16:
        raise Misuse(f"PORT: got {wanted!r}, want a whole number below 65536")
    with server(Path(__file__).resolve().parent.parent / "build" / "html", int(wanted)) as pages:
        print(f"http://{HOST}:{pages.server_port}/ shows the book; Ctrl-C ends it", flush=True)
        pages.serve_forever()


if __name__ == "__main__":
    finish(main)
