"""A server that answers as a test wants, or passes on what it is asked to a real one."""

import contextlib
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answer(Exception):
    """What the server says instead of the truth; without a status, it hangs up."""

    def __init__(self, status=None, text="", **headers):
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


@contextlib.contextmanager
def serve(behave, upstream=None):
    """Run a server; its address, and the paths that it was asked for.

    Args:
        behave: called with the number of the request. It may sleep, or raise Answer.
        upstream: the address of a real server, which answers everything else.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append(self.path)
            try:
                behave(len(asked))
                status, content, headers = self.pass_on(body)
            except Answer as answer:
                if answer.status is None:
                    self.close_connection = True
                    return
                status, content = answer.status, answer.text.encode()
                headers = {name.replace("_", "-"): text for name, text in answer.headers.items()}
            with contextlib.suppress(OSError):  # the client may be gone
                self.send_response(status)
                for name, text in headers.items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def pass_on(self, body):
            request = urllib.request.Request(
                f"{upstream}{self.path}", body or None, method=self.command
            )
            for name in ("Content-Type", "Accept"):
                if name in self.headers:
                    request.add_header(name, self.headers[name])
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    kind = answer.headers.get("Content-Type", "application/json")
                    return answer.status, answer.read(), {"Content-Type": kind}
            except urllib.error.HTTPError as error:
                return error.code, error.read(), {"Content-Type": "application/json"}

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
