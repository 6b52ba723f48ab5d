"""A Hub on this machine: a server that answers `huggingface_hub` from directories, and can misbehave."""

import base64
import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[1]


class Hub:
    """Serves repositories; large files come from a second address, as they do from the real one.

    Args:
        repositories: "owner/name" -> {revision: directory}; the first revision is `main` too.
        private: repositories that answer only to a token.
        drop: number of bytes after which the first answer for each large file breaks off.
        hidden: names of files that are listed and not there.
    """

    def __init__(self, repositories, private=(), drop=0, hidden=()):
        self.files, self.commits = {}, {}
        for repository, revisions in repositories.items():
            for directory in revisions.values():
                commit = hashlib.sha1(f"{repository}{directory}".encode()).hexdigest()
                paths = [path for path in Path(directory).rglob("*") if path.is_file()]
                held = {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}
                self.files[repository, commit] = held
                for name in {"main" if not self._knows(repository) else "", *_names(revisions, directory), commit}:
                    self.commits.setdefault((repository, name), commit)
        self.private, self.drop, self.hidden = private, drop, hidden
        self.asked, self.dropped = [], set()
        self.servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self)) for _ in range(2)]
        self.address, self.storage = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)
        for server in self.servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def _knows(self, repository):
        return any(known == repository for known, _ in self.commits)

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def sent(self):
        """The Range headers of the requests for the contents of large files."""
        return [ranges for method, path, ranges, _ in self.asked if method == "GET" and path.startswith("/cdn/")]

    def run(self, home, script, *arguments, **environment):
        """What a Python script prints in a process of its own whose Hub this is, and whose cache is in `home`."""
        env = {**os.environ, "HF_ENDPOINT": self.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
               "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **environment}  # fmt: skip
        done = subprocess.run([sys.executable, "-c", script, *arguments], env=env, capture_output=True, text=True,
                              cwd=ROOT, timeout=120)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def _names(revisions, directory):
    return [name for name, held in revisions.items() if held == directory]


def _handler(hub):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path = unquote(self.path.split("?")[0])
            token = self.headers.get("authorization")
            hub.asked.append((self.command, path, self.headers.get("range"), token))
            if found := re.fullmatch(r"/cdn/(.+)", path):
                return self.large(found[1])
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
                repository, kind, revision = found.groups()
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                repository, revision, kind = found.groups()
            else:
                return self.answer(404, b"{}")
            if not hub._knows(repository) or (repository in hub.private and not token):
                return self.answer(401, b"{}", {"X-Error-Message": "Invalid username or password."})
            if (commit := hub.commits.get((repository, revision))) is None:
                return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            files = hub.files[repository, commit]
            if kind == "revision":
                names = [{"rfilename": name} for name in files]
                return self.answer(200, json.dumps({"id": repository, "sha": commit, "siblings": names}).encode())
            if kind == "tree":
                return self.answer(200, json.dumps([_entry(name, held) for name, held in files.items()]).encode())
            if kind not in files or kind in hub.hidden:
                return self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            held, headers = files[kind], {"X-Repo-Commit": commit, "ETag": f'"{_sha(files[kind])}"'}
            if len(held) < 2000:
                return self.answer(200, held, headers)
            headers |= {"X-Linked-Size": len(held), "X-Linked-Etag": headers["ETag"]}
            self.answer(302, b"", headers | {"Location": f"{hub.storage}/cdn/{repository}/{commit}/{kind}"})

        do_HEAD = do_GET

        def do_POST(self):
            """The steps of an upload: make a repository, say how each file is sent, take them in one commit."""
            path, sent = unquote(self.path), self.body()
            hub.asked.append(("POST", path, None, self.headers.get("authorization")))
            if not self.headers.get("authorization"):
                return self.answer(401, b"{}", {"X-Error-Message": "Invalid username or password."})
            if path == "/api/repos/create":
                made = json.loads(sent)
                repository = f"{made['organization']}/{made['name']}"
                hub.commits.setdefault((repository, "main"), "0" * 40)
                hub.files.setdefault((repository, "0" * 40), {})
                return self.reply({"url": f"{hub.address}/{repository}", "id": repository})
            if path.endswith("/preupload/main"):
                files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                         for file in json.loads(sent)["files"]]  # fmt: skip
                return self.reply({"files": files})
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
                lines = [json.loads(line) for line in sent.splitlines()]
                held = {line["value"]["path"]: base64.b64decode(line["value"]["content"])
                        for line in lines if line["key"] == "file"}  # fmt: skip
                commit = hashlib.sha1(sent).hexdigest()
                for name in ("main", commit):
                    hub.commits[found[1], name] = commit
                hub.files[found[1], commit] = {**held}
                url = f"{hub.address}/{found[1]}/commit/{commit}"
                return self.reply({"commitUrl": url, "commitOid": commit, "success": True})
            self.reply({"errors": [], "warnings": []})  # the check of a card's front matter

        def body(self):
            if self.headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def reply(self, value):
            self.answer(200, json.dumps(value).encode())

        def large(self, path):
            owner, name, commit, file = path.split("/", 3)
            held, start = hub.files[f"{owner}/{name}", commit][file], 0
            if ranges := re.fullmatch(r"bytes=(\d+)-", self.headers.get("range") or ""):
                start = int(ranges[1])
            headers = {"ETag": f'"{_sha(held)}"', "Accept-Ranges": "bytes"}
            if ranges:
                headers["Content-Range"] = f"bytes {start}-{len(held) - 1}/{len(held)}"
            breaks = hub.drop and path not in hub.dropped and self.command == "GET"
            self.answer(206 if ranges else 200, held[start:], headers, hub.drop if breaks else None)
            if breaks:
                hub.dropped.add(path)
                self.close_connection = True

        def answer(self, status, content, headers=(), limit=None):
            self.send_response(status)
            for key, value in {"Content-Length": len(content), **dict(headers)}.items():
                self.send_header(key, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[:limit])

        def log_message(self, *_):
            pass

    return Handler


def _entry(name, held):
    return {"type": "file", "path": name, "size": len(held), "oid": _sha(held)}


def _sha(held):
    return hashlib.sha1(held).hexdigest()
