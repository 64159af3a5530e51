"""A small web application: it squares numbers."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers GET /healthz and GET /square/N."""

    def do_GET(self):
        parts = self.path.strip("/").split("/")
        if parts == ["healthz"]:
            self.answer(200, "well")
        elif len(parts) == 2 and parts[0] == "square" and parts[1].isdecimal():
            self.answer(200, str(int(parts[1][:100]) ** 2))
        else:
            self.answer(404, "there is nothing here")

    def answer(self, status, text):
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8000), Handler).serve_forever()
