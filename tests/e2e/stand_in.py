"""A service that is none: it serves `/readyz` and `/api/spaces`, notes its environment and its end, and does as told.

Run as `python stand_in.py <module>`; tests put it in the place of ingest, embedder and graph-writer.
Its data folder may hold `exit-code` (end with it at once) and `deaf` (ignore SIGTERM).
"""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

module = sys.argv[1]
folder = Path(os.environ["PAPERLOG_DATA_DIR"])
folder.mkdir(parents=True, exist_ok=True)
(folder / "environment.json").write_text(json.dumps(dict(os.environ)))
if (folder / "exit-code").exists():
    sys.stderr.write(f"{module} gives up, as told\n")
    sys.exit(int((folder / "exit-code").read_text()))


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        spaces = folder / "spaces.json"
        body = {
            "ready": True,
            "reasons": [],
            "spaces": json.loads(spaces.read_text()) if spaces.exists() else [],
        }
        payload = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        pass


def end(*_: object) -> None:
    if not (folder / "deaf").exists():
        with (folder.parent / "ends").open("a") as ends:
            ends.write(f"{time.monotonic()} {folder.name}\n")
        sys.exit(0)


signal.signal(signal.SIGTERM, end)
if (folder / "with-child").exists():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (folder / "child-pid").write_text(str(child.pid))
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PAPERLOG_HTTP_PORT"])), Answers).serve_forever()
