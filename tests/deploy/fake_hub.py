"""A Hub on this machine: the few HTTP calls that huggingface_hub makes to upload and download."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class FakeHub:
    """Repositories in memory.

    Attributes:
        commits: repository -> commits in order, each a mapping of path to bytes.
        asked: every request as "METHOD path".
        private: repositories that answer only to a token.
    """

    def __init__(self) -> None:
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.private: set[str] = set()
        self.url = ""

    @staticmethod
    def oid(number: int) -> str:
        return hashlib.sha1(str(number).encode()).hexdigest()

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes] | None:
        commits = self.commits.get(repo, [])
        if revision == "main":
            return commits[-1] if commits else None
        return next((c for n, c in enumerate(commits) if self.oid(n) == revision), None)


@contextmanager
def serve() -> Iterator[FakeHub]:
    """The Hub, up for the length of a `with` block."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", headers.pop("size", str(len(body))))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def json(self, row: object, code: int = 200) -> None:
            self.answer(code, json.dumps(row).encode(), Content_Type="application/json")

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def note(self) -> str:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            return path

        def do_GET(self) -> None:
            path = self.note()
            repo, _, rest = path.strip("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            if repo in hub.private and "Authorization" not in self.headers:
                self.answer(401, X_Error_Code="RepoNotFound")
                return
            files = hub.files(repo, revision)
            if files is None:
                known = repo in hub.commits
                self.answer(404, X_Error_Code="RevisionNotFound" if known else "RepoNotFound")
            elif name not in files:
                self.answer(404, X_Error_Code="EntryNotFound")
            else:
                number = next(n for n, c in enumerate(hub.commits[repo]) if c is files)
                self.answer(
                    200, files[name], X_Repo_Commit=hub.oid(number),
                    ETag=f'"{hashlib.sha256(files[name]).hexdigest()}"',
                )  # fmt: skip

        do_HEAD = do_GET

        def do_PUT(self) -> None:
            path = self.note()
            body = self.body()
            assert hashlib.sha256(body).hexdigest() == path.rsplit("/", 1)[1]
            hub.objects[path.rsplit("/", 1)[1]] = body
            self.answer(200)

        def do_POST(self) -> None:
            path, body = self.note(), self.body()
            if path == "/api/repos/create":
                row = json.loads(body)
                repo = "/".join(filter(None, [row.get("organization"), row["name"]]))
                code = 409 if repo in hub.commits else 200
                hub.commits.setdefault(repo, [])
                self.json({"url": f"{hub.url}/{repo}"}, code)
            elif path == "/api/validate-yaml":
                self.json({"errors": [], "warnings": []})
            elif "/preupload/" in path:
                modes = [
                    {
                        "path": f["path"],
                        "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for f in json.loads(body)["files"]
                ]
                self.json({"files": modes})
            elif path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {**o, "actions": {"upload": {"href": f"{hub.url}/upload/{o['oid']}"}}}
                    for o in json.loads(body)["objects"]
                ]
                self.json({"transfer": "basic", "objects": objects})
            elif "/commit/" in path:
                repo = path.removeprefix("/api/models/").partition("/commit/")[0]
                files = dict(hub.files(repo) or {})
                for line in body.splitlines():
                    row = json.loads(line)
                    value = row["value"]
                    if row["key"] == "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    elif row["key"] == "lfsFile":
                        files[value["path"]] = hub.objects[value["oid"]]
                hub.commits[repo].append(files)
                oid = hub.oid(len(hub.commits[repo]) - 1)
                self.json(
                    {"success": True, "commitUrl": f"{hub.url}/{repo}/commit/{oid}",
                     "commitOid": oid}
                )  # fmt: skip
            else:
                self.answer(404)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
