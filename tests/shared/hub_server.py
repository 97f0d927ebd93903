"""A server that answers as the Hugging Face hub does when models are downloaded, from a folder OWNER/MODEL/FILE."""

import hashlib
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_of(root):
    """Yield the address of the server, and a list of what it was asked for, `GET /PATH`."""
    asked = []

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked.append(f"{self.command} {self.path}")
            about = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/[^/?]+(\?.*)?", self.path)
            file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
            if about and (root / about[1]).is_dir():
                files = sorted((root / about[1]).iterdir())
                whole = {"id": about[1], "sha": COMMIT, "siblings": [{"rfilename": file.name} for file in files]}
                tree = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _sha1(file)}
                    for file in files
                ]
                self.answer(json.dumps(tree if about[2] == "tree" else whole).encode())
            elif file and (root / file[1] / file[2]).is_file():
                path = root / file[1] / file[2]
                self.answer(path.read_bytes(), {"ETag": f'"{_sha1(path)}"', "X-Repo-Commit": COMMIT})
            else:
                self.answer(b"{}", {"X-Error-Code": "RepoNotFound"}, status=404)

        do_HEAD = do_GET  # noqa: N815

        def answer(self, body, headers=None, *, status=200):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def _sha1(file):
    return hashlib.sha1(file.read_bytes()).hexdigest()
