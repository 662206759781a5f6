"""The metadata services of three clouds, as far as spot notices go, on a real port of this machine."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

AWS_TOKEN = "session-token"


class Service(ThreadingHTTPServer):
    """answers: path -> text, or an integer: an HTTP status. needs: a header without which it answers 401. asked: all paths so far."""

    def __init__(self, answers, needs=()):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.needs, self.asked = answers, dict(needs), []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def _respond(self, text):
        status = text if isinstance(text, int) else 200
        body = b"" if isinstance(text, int) else text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        known = self.path == "/latest/api/token" and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        self._respond(AWS_TOKEN if known else 405)

    def do_GET(self):
        server, path = self.server, self.path.split("?")[0]
        server.asked.append(self.path)
        if any(self.headers.get(name) != value for name, value in server.needs.items()):
            return self._respond(401)
        return self._respond(server.answers.get(path, 404))

    def log_message(self, *words):
        pass
