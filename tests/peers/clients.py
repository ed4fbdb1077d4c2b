"""The command-line clients, and what they print as plain values."""

import dataclasses
import json
import re

from harness import check

VERSION = {"h1": "--http1.1", "h2": "--http2-prior-knowledge"}


@dataclasses.dataclass
class Fetched:
    """One curl run: the last head, all heads, trailers, the body, what `-w` counted."""

    heads: list
    trailers: list
    body: bytes
    counts: dict
    log: str
    code: int

    @property
    def status(self):
        return self.heads[-1][0]

    @property
    def headers(self):
        return self.heads[-1][1]

    def values(self, name):
        return [value for key, value in self.headers if key == name]

    @property
    def json(self):
        return json.loads(self.body)

    def saw(self, name):
        """The origin's view of one request header."""
        return [value for key, value in self.json["headers"] if key == name]


def curl(lab, url, *words, down=None, code=0, timeout=30, input=None):
    """Fetches one URL; `code` is curl's exit code, None lets any pass."""
    heads, body = lab.path("heads"), lab.path("body")
    for file in (heads, body):
        file.unlink(missing_ok=True)
    done = lab.run("curl", "-sSv", "--noproxy", "nothing.example", "--max-time", timeout - 5, *([VERSION[down]] if down else []),
                   "-D", heads, "-o", body, "-w", COUNTS, *words, url, timeout=timeout, code=code, input=input)
    blocks, trailers = [], []
    for line in heads.read_text().splitlines() if heads.exists() else ():
        if line.startswith("HTTP/"):
            blocks.append((int(line.split()[1]), []))
            ended = False
        elif not line:
            ended = True
        else:
            name, _, value = line.partition(":")
            (trailers if ended else blocks[-1][1]).append((name.lower(), value.strip()))
    counts = json.loads(done.out) if done.out.startswith("{") else {}
    return Fetched(blocks, trailers, body.read_bytes() if body.exists() else b"", counts, done.err, done.code)


COUNTS = '{"version":"%{http_version}","sent":%{size_upload},"connects":%{num_connects},"verify":%{ssl_verify_result}}'


def wrk(lab, url, *, connections=32, seconds=3):
    """Requests that wrk made, and what it counted against the server."""
    # At its end wrk leaves in the middle of its last requests.
    lab.flags |= {"client_reset"}
    report = lab.run("wrk", "-t", 1, "-c", connections, "-d", f"{seconds}s", url).out
    return int(re.search(r"(\d+) requests in", report).group(1)), re.findall(r"Socket errors:.*|Non-2xx.*", report)


def h2load(lab, url, *words, count):
    """Every one of `count` requests has to be answered with 2xx."""
    report = lab.run("h2load", "-n", count, *words, url, timeout=50).out
    check(f"{count} succeeded, 0 failed, 0 errored, 0 timeout" in report and f"{count} 2xx" in report, report[-900:])
    return report
