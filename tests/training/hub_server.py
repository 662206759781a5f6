"""A Hub of one process: as much of its API as an upload of a folder takes (repositories, large files, commits)."""

import base64
import json
import threading
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_theTokenThatNobodyMustSee"


class Hub:
    """repositories: name -> {"private": bool, "files": {path: content}}. calls: what was asked for, in order."""

    def __init__(self, refuse_with=None):
        self.refuse_with = refuse_with
        self.repositories, self.large, self.calls = {}, {}, []

    def create(self, body):
        name = f"{body['organization'] or 'me'}/{body['name']}"
        self.repositories.setdefault(name, {"private": body.get("visibility") == "private", "files": {}})
        return {"url": f"{self.endpoint}/{name}", "name": name, "id": name}

    def preupload(self, body):
        # The real one decides by size and by .gitattributes.
        modes = {True: "lfs", False: "regular"}
        return {
            "files": [
                {"path": one["path"], "uploadMode": modes[one["path"].endswith(".safetensors")], "shouldIgnore": False}
                for one in body["files"]
            ]
        }

    def batch(self, body):
        put = [
            {**one, "actions": {"upload": {"href": f"{self.endpoint}/large/{one['oid']}", "header": {}}}}
            for one in body["objects"]
        ]
        return {"transfer": "basic", "objects": put}

    def commit(self, name, lines):
        files = self.repositories[name]["files"]
        for line in map(json.loads, lines.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
        oid = "0" * 40
        return {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{self.endpoint}/{name}/commit/{oid}",
            "hookOutput": "",
        }


def handler_of(hub):
    class Handler(BaseHTTPRequestHandler):
        def _answer(self, status, content):
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _body(self):
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def do_POST(self):
            body, path = self._body(), self.path.split("?")[0]
            hub.calls.append(path)
            if hub.refuse_with is not None:
                # A server that is careless with what it was sent.
                message = f"not allowed for {self.headers['Authorization']}"
                self._answer(hub.refuse_with, {"error": message})
            elif self.headers["Authorization"] != f"Bearer {TOKEN}":
                self._answer(401, {"error": "Invalid username or password."})
            elif path == "/api/repos/create":
                self._answer(200, hub.create(json.loads(body)))
            elif path == "/api/validate-yaml":
                self._answer(200, {"errors": [], "warnings": []})
            elif path.endswith("/preupload/main"):
                self._answer(200, hub.preupload(json.loads(body)))
            elif path.endswith("/info/lfs/objects/batch"):
                self._answer(200, hub.batch(json.loads(body)))
            elif path.endswith("/commit/main"):
                name = path.removeprefix("/api/models/").removesuffix("/commit/main")
                self._answer(200, hub.commit(name, body))
            else:
                self._answer(404, {"error": f"no {path}"})

        def do_GET(self):
            hub.calls.append(self.path)
            self._answer(404, {"error": f"no {self.path}"})

        def do_PUT(self):
            body, oid = self._body(), self.path.rsplit("/", 1)[-1]
            assert sha256(body).hexdigest() == oid
            hub.large[oid] = body
            self._answer(200, {})

        def log_message(self, *words):
            pass

    return Handler


@contextmanager
def hub_server(refuse_with=None):
    hub = Hub(refuse_with)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub)) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
