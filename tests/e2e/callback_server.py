"""A pool manager's side of the ready callback: answers as told and keeps what it was sent."""

import http.server
import json
import threading


class CallbackServer:
    """Answers the n-th POST with `statuses[n]`, the last one from then on."""

    def __init__(self, statuses=(200,), on_call=None, host="127.0.0.1"):
        self.calls = []  # (path, headers, body as text)
        self.called = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                outer.calls.append((self.path, dict(self.headers), body))
                if on_call:
                    on_call(json.loads(body))
                status = statuses[min(len(outer.calls), len(statuses)) - 1]
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                outer.called.set()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((host, 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def url(self, path="/v2/internal/workers/ready", host="127.0.0.1"):
        return f"http://{host}:{self.port}{path}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
