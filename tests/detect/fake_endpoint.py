"""A chat endpoint on this machine that misbehaves as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(content: str | None, **choice: object) -> bytes:
    message = {"role": "assistant", "content": content, **dict(choice.pop("message", {}))}
    body = {
        "choices": [{"message": message, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
    }
    return json.dumps(body).encode()


class Server(ThreadingHTTPServer):
    """Plays `script` one entry a request, its last entry for ever; remembers what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Callable[[Handler, dict], None]] = []
        self.asked: list[dict] = []
        self.headers_seen: list[dict[str, str]] = []
        self.times: list[float] = []
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            step = server.script[min(len(server.asked), len(server.script) - 1)]
            server.asked.append({"path": self.path, **body})
            server.headers_seen.append(dict(self.headers))
            server.times.append(time.monotonic())
            server.now += 1
            self.counted = 1
            server.most = max(server.most, server.now)
        try:
            step(self, body)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            self.leave()

    def leave(self) -> None:
        """Count the request as answered: before its client may know, and ask the next."""
        with self.server.lock:
            self.server.now -= self.counted
            self.counted = 0

    def send(self, status: int, payload: bytes, **headers: str) -> None:
        self.leave()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(payload)


def says(content: str | None, **choice: object) -> Callable[[Handler, dict], None]:
    return lambda handler, body: handler.send(200, completion(content, **choice))


def fails(status: int, **headers: str) -> Callable[[Handler, dict], None]:
    return lambda handler, body: handler.send(status, b'{"error": "no"}', **headers)


def serving() -> Iterator[Server]:
    """A fixture: `server = pytest.fixture(serving)`."""
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()
