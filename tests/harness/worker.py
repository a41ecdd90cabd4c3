"""Starts a worker binary and talks to it: log lines, HTTP, event streams, odd clients.

Python's standard library only. Knows the contract's wire formats, nothing of how the worker is made.
"""

import concurrent.futures
import json
import os
import select
import signal as signals
import socket
import subprocess
import threading
import time

DEADLINE_S = 60  # for anything that must happen; generous, since sanitizers and CI are slow


class WorkerDied(AssertionError):
    """The process ended while something was still awaited from it."""


class Response:
    """One HTTP answer. Unpacks as (status, headers, body); header names are lower case."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def __iter__(self):
        return iter((self.status, self.headers, self.body))

    def json(self):
        return json.loads(self.body)


class Connection:
    """One socket; sends raw bytes and reads HTTP answers from it, byte by byte exact."""

    def __init__(self, port, host="127.0.0.1", timeout=DEADLINE_S, receive_buffer=None):
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(timeout)
        self.sock.connect((host, port))
        self.buffer = b""
        self.chunked = False
        self.left = None  # bytes of a Content-Length body; None: until the end

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.sock.sendall(data)

    def request(self, method, path, body=None, headers=()):
        self.send(request_bytes(method, path, body, headers))
        return self.response(method)

    def _fill(self):
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def _line(self):
        while b"\r\n" not in self.buffer:
            if not self._fill():
                raise EOFError("closed within a line: %r" % self.buffer)
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode("latin-1")

    def _take(self, count):
        while len(self.buffer) < count:
            if not self._fill():
                raise EOFError("closed within a body")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def head(self):
        """Status and headers of the next answer (100 Continue is skipped)."""
        while True:
            status = int(self._line().split(" ", 2)[1])
            headers = {}
            while line := self._line():
                name, value = line.split(":", 1)
                assert name.lower() not in headers, "header twice: " + name
                headers[name.lower()] = value.strip()
            if status != 100:
                break
        self.chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self.left = int(headers["content-length"]) if "content-length" in headers else None
        return status, headers

    def piece(self):
        """Some more of the body; b"" at its end."""
        if self.chunked:
            size = int(self._line().split(";")[0], 16)
            data = self._take(size)
            if self._line() != "":
                raise ValueError("a chunk without its line end")
            return data
        if self.left is not None:
            data = self._take(self.left)
            self.left = 0
            return data
        if not self.buffer:
            self._fill()
        data, self.buffer = self.buffer, b""
        return data

    def response(self, method="GET"):
        status, headers = self.head()
        if method == "HEAD" or status in (204, 304):
            return Response(status, headers, b"")
        body = b""
        while piece := self.piece():
            body += piece
            if self.left == 0 and not self.chunked:
                break
        return Response(status, headers, body)

    def closed_by_peer(self, timeout=DEADLINE_S):
        """True once the other side has closed; what it sent before is dropped."""
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            if select.select([self.sock], [], [], left)[0]:
                try:
                    if not self.sock.recv(65536):
                        return True
                except ConnectionError:
                    return True
        return False

    def reset(self):
        """Closes with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def close(self):
        self.sock.close()


class EventStream:
    """The answer to one POST /execute, read as it comes."""

    def __init__(self, connection):
        self.connection = connection
        self.status, self.headers = connection.head()
        self.raw = b""  # the whole body so far
        self.pending = b""
        self.ended = False
        self.ids = []  # of the `id:` lines so far

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def next_block(self):
        """The next `...\\n\\n` of the body, without its blank line; None at the end."""
        while b"\n\n" not in self.pending:
            if self.ended:
                assert self.pending == b"", "the body ends within an event: %r" % self.pending
                return None
            piece = self.connection.piece()
            self.raw += piece
            self.pending += piece
            self.ended = piece == b""
        block, self.pending = self.pending.split(b"\n\n", 1)
        return block

    def next(self):
        """The next event as a dict; None at the end. Comments are skipped."""
        while (block := self.next_block()) is not None:
            if block.startswith(b"id: "):
                line, block = block.split(b"\n", 1)
                self.ids.append(int(line[len(b"id: "):]))
            if not block.startswith(b":"):
                assert block.startswith(b"data: ") and b"\n" not in block, block
                return json.loads(block[len(b"data: "):])
        return None

    def until(self, kind):
        """Events up to and with the first of this type."""
        events = []
        while (event := self.next()) is not None:
            events.append(event)
            if event["type"] == kind:
                return events
        raise AssertionError("no %s in %r" % (kind, events))

    def rest(self):
        events = []
        while (event := self.next()) is not None:
            events.append(event)
        return events

    def body(self):
        """The whole body of a refusal."""
        return Response(self.status, self.headers, self._body()).body

    def _body(self):
        data = self.pending
        while piece := self.connection.piece():
            data += piece
        return data

    def close(self):
        self.connection.close()


def request_bytes(method, path, body=None, headers=()):
    """A request as bytes. `body`: bytes, or anything json.dumps takes; `headers`: dict or pairs."""
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    names = {name.lower() for name, _ in pairs}
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    if "host" not in names:
        pairs.insert(0, ("Host", "worker"))
    if body is not None and "content-type" not in names:
        pairs.append(("Content-Type", "application/json"))
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    head = "%s %s HTTP/1.1\r\n" % (method, path)
    head += "".join("%s: %s\r\n" % pair for pair in pairs)
    return head.encode("latin-1") + b"\r\n" + (body or b"")


class Worker:
    """A worker process. `--port 0 --host 127.0.0.1` are added unless `args` name them.

    with Worker(binary, ["--model", path]) as worker:   # has logged `ready` here
        worker.execute({...})                           # -> [(seconds since the request, event)]
    """

    def __init__(self, binary, args=(), env=None, wait_ready=True, cwd=None):
        args = [str(a) for a in args]
        flags = {a.split("=")[0] for a in args}
        if "--port" not in flags:
            args += ["--port", "0"]
        if "--host" not in flags:
            args += ["--host", "127.0.0.1"]
        self.command = [str(binary)] + args
        clean = {k: v for k, v in os.environ.items() if not k.startswith("LLORCH_")}
        self.env = {**clean, **{k: str(v) for k, v in (env or {}).items()}}
        self.wait_ready, self.cwd = wait_ready, cwd
        self.process = None
        self._lines, self._stderr, self._eof = [], b"", False
        self._changed = threading.Condition()
        self._threads = []

    # Process

    def __enter__(self):
        self.start()
        try:
            if self.wait_ready:
                self.wait_event("ready")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            try:
                self.stop(timeout=20)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def start(self):
        self.process = subprocess.Popen(
            self.command, env=self.env, cwd=self.cwd, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for read in (self._read_stdout, self._read_stderr):
            self._threads.append(threading.Thread(target=read, daemon=True))
            self._threads[-1].start()

    def signal(self, number=signals.SIGTERM):
        self.process.send_signal(number)

    def wait(self, timeout=DEADLINE_S):
        """The exit code, once all output has been read."""
        code = self.process.wait(timeout)
        for thread in self._threads:
            thread.join(timeout)
        return code

    def stop(self, sig=signals.SIGTERM, timeout=DEADLINE_S):
        self.signal(sig)
        return self.wait(timeout)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    # Output

    def _read_stdout(self):
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._eof = True
            self._changed.notify_all()

    def _read_stderr(self):
        for line in self.process.stderr:
            with self._changed:
                self._stderr += line

    @property
    def stdout(self):
        with self._changed:
            return b"".join(self._lines).decode()

    @property
    def stderr(self):
        with self._changed:
            return self._stderr.decode(errors="replace")

    @property
    def lines(self):
        """Every line of stdout, parsed; a line that is not JSON is an error."""
        with self._changed:
            lines = list(self._lines)
        return [json.loads(line) for line in lines]

    def events(self, name, **fields):
        """The log lines of this event whose fields have these values."""
        return [x for x in self.lines
                if x["event"] == name and all(x.get(k) == v for k, v in fields.items())]

    def wait_event(self, name, timeout=DEADLINE_S, **fields):
        """The first log line of this event (with these values); waits for it."""
        end = time.monotonic() + timeout
        seen = 0
        while True:
            with self._changed:
                while len(self._lines) == seen:
                    if self._eof:
                        raise WorkerDied("exit %s before `%s`; stderr: %s" % (
                            self.process.wait(), name, self._stderr.decode(errors="replace")))
                    if not self._changed.wait(end - time.monotonic()):
                        raise TimeoutError("no `%s` within %s s" % (name, timeout))
                new = self._lines[seen:]
                seen = len(self._lines)
            for line in map(json.loads, new):
                if line["event"] == name and all(line.get(k) == v for k, v in fields.items()):
                    return line

    @property
    def port(self):
        """The port really bound; waits until it is known."""
        return self.wait_event("listening")["port"]

    # HTTP

    def connect(self, **options):
        return Connection(self.port, **options)

    def request(self, method, path, body=None, headers=()):
        with self.connect() as connection:
            return connection.request(method, path, body, headers)

    def health(self):
        return self.request("GET", "/health").json()

    def open_execute(self, body, headers=(), **options):
        """Sends POST /execute and returns the stream as soon as its headers are there."""
        connection = self.connect(**options)
        connection.send(request_bytes("POST", "/execute", body, headers))
        return EventStream(connection)

    def execute(self, body, headers=()):
        """Runs a request to its end: [(seconds since it was sent, event)]."""
        begin = time.monotonic()
        with self.open_execute(body, headers) as stream:
            assert stream.status == 200, (stream.status, stream.body())
            events = []
            while (event := stream.next()) is not None:
                events.append((time.monotonic() - begin, event))
            return events

    def told(self, body):
        """What /execute answers but for what the clock says: each token event as it was written, and
        the end's (tokens_out, stop_reason, stop_sequence)."""
        with self.open_execute(body) as stream:
            assert stream.status == 200
            kept = []
            while (block := stream.next_block()) is not None:
                assert b'"type":"error"' not in block, block
                if b'"type":"token"' in block:
                    kept.append(block)
                elif b'"type":"end"' in block:
                    end = json.loads(block[6:])
                    kept.append((end["tokens_out"], end["stop_reason"], end.get("stop_sequence")))
            return kept

    def told_together(self, bodies):
        """The same of bodies that are sent at once, each on a connection of its own."""
        with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
            return list(pool.map(self.told, bodies))

    def wait_health(self, timeout=DEADLINE_S, **fields):
        """Asks /health until its fields have these values."""
        end = time.monotonic() + timeout
        while True:
            health = self.health()
            if all(health.get(k) == v for k, v in fields.items()):
                return health
            assert time.monotonic() < end, "%r never came: %r" % (fields, health)
            time.sleep(0.01)


class Gate:
    """The fake backend's brake: with LLORCH_FAKE_GATE set to `path`, each step takes one byte.

    Warm-up steps take theirs too, so a test lets some through before `ready` and shuts it then.
    """

    def __init__(self, folder):
        self.path = os.path.join(str(folder), "gate")
        os.mkfifo(self.path)
        # Read and write: opening never waits, and the worker never sees an end of file.
        self.file = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    @property
    def env(self):
        return {"LLORCH_FAKE_GATE": self.path}

    def let(self, steps):
        """Lets this many steps pass; more than a pipe holds are as good as all."""
        try:
            os.write(self.file, b"." * steps)
        except BlockingIOError:
            pass

    def open(self):
        self.let(60_000)

    def shut(self):
        """Takes back what no step has used."""
        try:
            while os.read(self.file, 65536):
                pass
        except BlockingIOError:
            pass

    def close(self):
        os.close(self.file)
