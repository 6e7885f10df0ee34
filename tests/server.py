"""A server on this machine that knows ranges, and can be told to misbehave."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server:
    """Serves ``files``; ``cut`` bytes into an answer it hangs up, as often as ``cuts`` says."""

    def __init__(self):
        self.files, self.requests = {}, []
        self.cut, self.cuts, self.ranges = 0, 0, True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.http.server_port}'
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, handler):
        start = handler.headers.get('Range')
        self.requests.append((handler.path, start))
        data = self.files.get(handler.path)
        if data is None:
            handler.send_error(404)
            return
        begin = int(start.removeprefix('bytes=').removesuffix('-')) if start and self.ranges else 0
        handler.send_response(206 if begin else 200)
        handler.send_header('Content-Length', str(len(data) - begin))
        handler.end_headers()
        body = data[begin:]
        if self.cuts > 0:
            self.cuts -= 1
            body = body[: self.cut]
        handler.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr('frdet.files.time.sleep', lambda seconds: None)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()
