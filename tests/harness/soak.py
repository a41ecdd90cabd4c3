"""Random clients for tools/soak, and the ledger of what they saw.

Every client thread does one thing after the other: a request that it reads to the end, cancels,
leaves, resumes or repeats; or something that is no request at all. What an answer must be is known
without the worker's help: a subject (a prompt with its parameters and seed) has one answer, so all
answers to it are equal, and one that was cut short is a beginning of it.
"""

import collections
import itertools
import json
import random
import socket
import threading
import time

from worker import EventStream, Worker, request_bytes

CONTEXT = 2048
TERMINAL = ("end", "error")
WORDS = ("Once upon a time there was a small red ball and a dog that liked to run in the sun "
         "Anna lives in a town on an island what is the colour of the sky my name is Tom").split()
BAD_BODIES = [b"", b"{", b"[]", b"null", b'{"job_id":1}', b'{"job_id":"x"}', b"\xff\xfe{}",
              b'{"job_id":"","prompt":"","max_tokens":0}', b"[" * 100_000, b'{"a":' * 5000,
              b'{"job_id":"x","prompt":"a","max_tokens":1,"temperature":9,"top_p":-1,"stop":[""]}',
              b'{"job_id":"x","prompt":"' + b"many words " * 2900 + b'","max_tokens":5}',
              b'{"model":"none","messages":[]}', b'{"messages":[{"role":"user"}]}']
BAD_BYTES = [b"\r\n\r\nhello\r\n\r\n", b"GET /livez HTTP/9.9\r\n\r\n",
             b"\x16\x03\x01\x02\x00\x01\xfc",
             b"POST /execute HTTP/1.1\r\nHost: w\r\nContent-Length: -1\r\n\r\n",
             b"POST /execute HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
             b"GET /livez HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
             b"POST /execute HTTP/1.1\r\nHost: w\r\nContent-Length: 100\r\n\r\n{"]


class QuietWorker(Worker):
    """A worker whose job lines are counted as they come, not kept: an hour has too many."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.started = collections.Counter()  # job id -> execute_start lines without their end
        self.outcomes = collections.Counter()
        self.log_problems = []

    def _read_stdout(self):
        for line in self.process.stdout:
            with self._changed:
                if not self._count(line):
                    self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._eof = True
            self._changed.notify_all()

    def _count(self, line):
        if b'"event":"execute_' not in line:
            return False
        entry = json.loads(line)
        job = entry["job_id"]
        if entry.get("attached"):
            return True  # a reader of a job that was there already
        if entry["event"] == "execute_start":
            self.started[job] += 1
        else:
            self.outcomes[entry["outcome"]] += 1
            self.started[job] -= 1
            if self.started[job] == 0:
                del self.started[job]
            elif self.started[job] < 0:
                self.log_problems.append("execute_end without its start: " + job)
        return True


class Subject:
    """A request that has one answer. `api`: execute, completions or chat."""

    def __init__(self, name, api, body):
        self.name, self.api, self.body = name, api, body
        self.longest = ()  # what was seen of the answer so far
        self.whole = None  # the answer, once one was read to its end
        self.seen = 0      # whole answers


class Ledger:
    """What all clients saw together. Any thread."""

    def __init__(self):
        self.lock = threading.Lock()
        self.problems = []
        self.done = collections.Counter()      # what clients did
        self.outcomes = collections.Counter()  # terminal events that were read
        self.admitted = 0   # requests whose 200 was read and that began a job
        self.refused = 0    # 429 and 503 that were read
        self.unheard = 0    # requests whose answer's head was not waited for
        self.untold = 0     # admitted, but the terminal event was not waited for
        self.cached_tokens = 0
        self.slowest_health_s = 0.0

    def count(self, **figures):
        with self.lock:
            for name, figure in figures.items():
                setattr(self, name, getattr(self, name) + figure)

    def problem(self, text):
        with self.lock:
            self.problems.append(text)

    def ended(self, event):
        outcome = (event["stop_reason"] if event["type"] == "end" else event["code"]).lower()
        with self.lock:
            self.outcomes[outcome] += 1

    def answer(self, subject, parts, whole):
        """`parts`: a sequence that makes up the answer; `whole`: nothing more comes."""
        parts = tuple(parts)
        with self.lock:
            common = min(len(parts), len(subject.longest))
            differs = parts[:common] != subject.longest[:common]
            if subject.whole is not None and (
                    len(parts) > len(subject.whole) or whole and parts != subject.whole):
                differs = True
            if differs:
                self.problems.append("two answers to %s (%r): %r and %r" % (
                    subject.name, subject.body, subject.longest, parts))
                return
            if len(parts) > len(subject.longest):
                subject.longest = parts
            if whole:
                if len(parts) < len(subject.longest):
                    self.problems.append("an answer to %s was longer once" % subject.name)
                subject.whole = parts
                subject.seen += 1


def make_subjects(seed):
    pick = random.Random(seed)

    def text(words):
        return " ".join(pick.choice(WORDS) for _ in range(words))

    shared = text(120)  # a prefix that several have in common
    samplings = [{"temperature": 0}, {"temperature": 1.0}, {"temperature": 0.8, "top_p": 0.9},
                 {"temperature": 1.2, "top_k": 30, "min_p": 0.02},
                 {"temperature": 0.7, "repetition_penalty": 1.3}]
    subjects = []
    for i in range(24):
        prompt = [text(pick.randint(1, 40)), text(pick.randint(100, 400)),
                  shared + " " + text(pick.randint(1, 30))][i % 3]
        body = {"prompt": prompt, "max_tokens": pick.choice([1, 5, 20, 60, 150, 300]), "seed": i,
                **samplings[i % len(samplings)]}
        if pick.random() < 0.5:
            body["logprobs"] = pick.choice([0, 3])
        if pick.random() < 0.5:
            body["ignore_eos"] = True
        if pick.random() < 0.4:
            body["stop"] = pick.choice([[" the"], ["."], ["xyzzy", " a b"]])
        subjects.append(Subject("execute-%d" % i, "execute", body))
    for i in range(6):
        body = {"model": "soak", "prompt": shared[:200 * i + 20], "max_tokens": 40, "seed": i,
                "temperature": i % 2}
        subjects.append(Subject("completion-%d" % i, "completions", body))
    for i in range(4):  # conversations; each turn is a subject of its own
        messages = []
        for turn in range(4):
            messages = messages + [{"role": "user", "content": text(8)}]
            body = {"model": "soak", "messages": messages, "max_tokens": 40, "seed": i,
                    "temperature": 0.5}
            subjects.append(Subject("chat-%d-%d" % (i, turn), "chat", body))
            messages = messages + [{"role": "assistant", "content": text(12)}]
    return subjects


def make_long_subjects():
    """Together they need more of the kv cache than tools/soak gives."""
    return [Subject("long-%d" % seed, "execute",
                    {"prompt": "Once upon a time", "max_tokens": 400, "seed": seed,
                     "ignore_eos": True, "logprobs": 0}) for seed in range(8)]


class Told:
    """The events of one job as a client reads them, checked as they come."""

    def __init__(self, ledger, name):
        self.ledger, self.name = ledger, name
        self.blocks, self.tokens, self.terminal = [], [], None
        self.next_id = None

    def wrong(self, what):
        self.ledger.problem("%s: %s" % (self.name, what))

    def take(self, block):
        """One block of the stream; a comment is none."""
        lines = block.split(b"\n")
        if lines[0].startswith(b":"):
            return
        if lines[0].startswith(b"id: "):
            number = int(lines.pop(0)[4:])
            if number != (self.next_id or 0):
                self.wrong("event %d where %s was to come" % (number, self.next_id))
            self.next_id = number + 1
        event = json.loads(lines[0][len(b"data: "):])
        kind = event["type"]
        if self.terminal is not None:
            self.wrong("%r after the terminal event" % event)
        if (kind == "started") != (not self.blocks) and kind != "error":
            self.wrong("%r as event %d" % (event, len(self.blocks)))
        self.blocks.append(lines[0])
        if kind == "started":
            self.ledger.count(cached_tokens=event["cached_tokens"])
        elif kind == "token":
            if event["i"] != len(self.tokens):
                self.wrong("token %d where %d was to come" % (event["i"], len(self.tokens)))
            self.tokens.append(lines[0])
        elif kind in TERMINAL:
            self.terminal = event

    def read(self, stream, events=None):
        """So many blocks, or all; False if the stream has ended."""
        for _ in range(events) if events is not None else itertools.count():
            block = stream.next_block()
            if block is None:
                if self.terminal is None:
                    self.wrong("no terminal event after %r" % self.blocks[-2:])
                return False
            self.take(block)
        return True

    def parts(self):
        """The answer so far, without what the clock says."""
        end = self.terminal
        if end is None or end["type"] != "end":
            return self.tokens
        return self.tokens + [(end["tokens_out"], end["stop_reason"],
                               end.get("stop_sequence_matched"))]


class Client(threading.Thread):
    """Does one thing after the other until the round ends."""

    def __init__(self, number, seed, worker, ledger, subjects, round_ends):
        super().__init__(daemon=True)
        self.random = random.Random("%s/%d" % (seed, number))
        self.worker, self.ledger, self.round_ends = worker, ledger, round_ends
        self.port = worker.port
        self.subjects = {api: [s for s in subjects if s.api == api]
                         for api in ("execute", "completions", "chat")}
        self.number, self.jobs = number, 0

    ACTIONS = [("whole", 30), ("cancel", 8), ("close", 8), ("reset", 5), ("half_close", 4),
               ("vanish", 4), ("slow", 1), ("openai_stream", 8), ("openai_whole", 8),
               ("openai_leave", 4), ("resume", 8), ("repeat", 6), ("together", 4), ("conflict", 3),
               ("deadline", 5), ("bad_body", 6), ("bad_bytes", 5), ("oversize", 2), ("scrape", 3),
               ("tokenize", 4), ("unknown_cancel", 1)]

    def run(self):
        names, weights = zip(*self.ACTIONS)
        while time.monotonic() < self.round_ends:
            name = self.random.choices(names, weights)[0]
            try:
                getattr(self, name)()
            except Exception as error:  # whatever it is, the soak must end with it told
                self.ledger.problem("%s: %s: %s" % (name, type(error).__name__, error))
            with self.ledger.lock:
                self.ledger.done[name] += 1

    # Requests

    def body(self, subject, **fields):
        self.jobs += 1
        job = "%d-%d-%d" % (self.number, self.jobs, self.random.getrandbits(32))
        body = {**subject.body, "job_id": job, **fields}
        if self.random.random() < 0.3:
            body["priority"] = self.random.choice([-100, -1, 0, 1, 100])
        return body

    def open(self, body, headers=(), begins=True, **options):
        """The stream of an admitted request, else None. `begins`: no job has this id."""
        stream = self.worker.open_execute(body, headers, **options)
        if stream.status == 200:
            self.ledger.count(admitted=int(begins))
            return stream
        self.refusal(stream.status, stream.headers, stream.body())
        stream.close()
        return None

    def refusal(self, status, headers, body):
        """What a good request may be told instead of an answer."""
        if status != 429 or int(headers.get("retry-after", 0)) < 1:
            self.ledger.problem("refused with %d %r %r" % (status, headers, body))
        self.ledger.count(refused=1)
        time.sleep(self.random.random() * 0.2)

    def finish(self, subject, told, counts=True):
        """Books a job whose stream was read to its end."""
        end = told.terminal
        if end is None:
            return
        if counts:
            self.ledger.ended(end)
        self.ledger.answer(subject, told.parts(), end["type"] == "end")

    def some(self):
        return self.random.choice(self.subjects["execute"])

    def events(self):
        return self.random.choice([0, 1, 2, 5, 20, 60])

    def whole(self, **fields):
        subject = self.some()
        body = self.body(subject, **fields)
        stream = self.open(body)
        if stream is None:
            return None
        with stream:
            told = Told(self.ledger, body["job_id"])
            told.read(stream)
        self.finish(subject, told)
        if told.terminal and told.terminal["type"] != "end":
            self.ledger.problem("%s failed: %r" % (body["job_id"], told.terminal))
        return subject, body, told

    def cancel(self):
        subject = self.some()
        body = self.body(subject)
        stream = self.open(body)
        if stream is None:
            return
        with stream:
            told = Told(self.ledger, body["job_id"])
            going_on = told.read(stream, self.events())
            status = self.worker.request("POST", "/cancel", {"job_id": body["job_id"]}).status
            if status != 202:
                told.wrong("/cancel answered %d" % status)
            if going_on:
                told.read(stream)
        self.finish(subject, told)

    def leave(self, how):
        subject = self.some()
        body = self.body(subject)
        stream = self.open(body)
        if stream is None:
            return
        told = Told(self.ledger, body["job_id"])
        going_on = told.read(stream, self.events())
        how(stream.connection)
        stream.close()
        if told.terminal is None:
            self.ledger.count(untold=1)
        else:
            self.ledger.ended(told.terminal)
        self.ledger.answer(subject, told.parts(), not going_on and told.terminal["type"] == "end")

    def close(self):
        self.leave(lambda connection: connection.close())

    def reset(self):
        self.leave(lambda connection: connection.reset())

    def half_close(self):
        subject = self.some()
        body = self.body(subject)
        stream = self.open(body)
        if stream is None:
            return
        with stream:
            told = Told(self.ledger, body["job_id"])
            if told.read(stream, self.events()):
                stream.connection.sock.shutdown(socket.SHUT_WR)
                told.read(stream)
        self.finish(subject, told)

    def vanish(self):
        """Gone before a byte of the answer has come, at times within the request."""
        data = request_bytes("POST", "/execute", self.body(self.some()))
        cut = self.random.choice([len(data), len(data), self.random.randrange(len(data))])
        self.ledger.count(unheard=int(cut == len(data)))
        with self.worker.connect() as connection:
            connection.send(data[:cut])
            if self.random.random() < 0.5:
                connection.reset()

    def slow(self):
        """Takes nothing for seconds: cut off, or served from what the sockets hold."""
        subject = self.some()
        body = self.body(subject, max_tokens=1200, logprobs=20, ignore_eos=True, stop=[])
        stream = self.open(body, receive_buffer=4096)
        if stream is None:
            return
        with stream:
            told = Told(self.ledger, body["job_id"])
            if told.read(stream, 3):
                time.sleep(self.random.uniform(1, 6))
                told.read(stream)
        if told.terminal is not None:
            self.ledger.ended(told.terminal)
            if told.terminal.get("code") not in (None, "INFERENCE_FAILED"):
                told.wrong("a slow reader was told %r" % told.terminal)

    # Deadlines, repeats, resumes

    def deadline(self):
        subject = self.some()
        body = self.body(subject)
        header = {"X-Deadline-Ms": str(self.random.choice([1, 20, 100, 500, 5000, 600_000]))}
        stream = self.open(body, header)
        if stream is None:
            return
        with stream:
            told = Told(self.ledger, body["job_id"])
            told.read(stream)
        self.finish(subject, told)
        if told.terminal and told.terminal.get("code", "TIMEOUT") != "TIMEOUT":
            told.wrong("a request with a deadline was told %r" % told.terminal)

    def resume(self):
        """Reads with pauses in between, each time from where it was."""
        subject = self.some()
        body = self.body(subject, stream_resume=True)
        told = Told(self.ledger, body["job_id"])
        headers, begins = {}, True
        while told.terminal is None:
            stream = self.open(body, headers, begins)
            if stream is None:
                return
            with stream:
                if not told.read(stream, self.random.choice([1, 3, 10, 100])):
                    break
                if told.terminal is None and self.random.random() < 0.1:
                    self.ledger.count(untold=1)  # it never comes back: the grace runs out
                    return
                if self.random.random() < 0.5:
                    stream.connection.reset()
            headers, begins = {"Last-Event-ID": str(told.next_id - 1)}, False
            time.sleep(self.random.choice([0, 0, 0.05, 0.3]))
        self.finish(subject, told)

    def repeat(self):
        """The same job again after its end: the same bytes."""
        first = self.whole()
        if first is None or first[2].terminal is None or first[2].terminal["type"] != "end":
            return
        _, body, told = first
        stream = self.open(body, begins=False)
        if stream is None:
            return
        with stream:
            again = Told(self.ledger, body["job_id"])
            again.read(stream)
        if again.blocks != told.blocks:
            told.wrong("a repeat told %r, first it was %r" % (again.blocks, told.blocks))

    def together(self):
        """Two readers of one job; one may leave."""
        subject = self.some()
        body = self.body(subject)
        first = self.open(body)
        if first is None:
            return
        told, other = (Told(self.ledger, body["job_id"]) for _ in range(2))
        with first:
            second = self.open(body, begins=False)
            if second is None:
                told.wrong("a second reader was refused")
                return
            with second:
                if self.random.random() < 0.5:
                    other.read(second, 1)
                else:
                    other.read(second)
            told.read(first)
        self.finish(subject, told)
        if other.blocks != told.blocks[:len(other.blocks)]:
            told.wrong("two readers were told %r and %r" % (other.blocks, told.blocks))

    def conflict(self):
        """Another body under the id of a job that runs."""
        subject = self.some()
        body = self.body(subject, max_tokens=300, ignore_eos=True, stop=[])
        stream = self.open(body)
        if stream is None:
            return
        with stream:
            told = Told(self.ledger, body["job_id"])
            if told.read(stream, 1):
                answer = self.worker.request("POST", "/execute", {**body, "max_tokens": 299})
                if answer.status == 200:  # it had ended
                    self.ledger.count(admitted=1, untold=1)
                elif answer.status != 409:
                    told.wrong("another body under its id: %d" % answer.status)
                told.read(stream)
        if told.terminal is not None:
            self.ledger.ended(told.terminal)

    # OpenAI's paths

    def openai(self):
        api = self.random.choice(["completions", "chat"])
        subject = self.random.choice(self.subjects[api])
        return subject, "/v1/completions" if api == "completions" else "/v1/chat/completions"

    def openai_whole(self):
        subject, path = self.openai()
        answer = self.worker.request("POST", path, subject.body)
        if answer.status != 200:
            self.refusal(*answer)
            return
        choice = answer.json()["choices"][0]
        text = choice["message"]["content"] if subject.api == "chat" else choice["text"]
        self.openai_ended(subject, text, choice["finish_reason"])

    def openai_ended(self, subject, text, finish):
        self.ledger.count(admitted=1, untold=1)  # `stop` may be an EOS or a stop sequence
        self.ledger.answer(subject, tuple(text) + ((finish,),), True)

    def openai_stream(self, leaves=False):
        subject, path = self.openai()
        with self.worker.connect() as connection:
            connection.send(request_bytes("POST", path, {**subject.body, "stream": True}))
            stream = EventStream(connection)
            if stream.status != 200:
                self.refusal(stream.status, stream.headers, stream.body())
                return
            text, finish, count = "", None, self.events() if leaves else -1
            while count != 0 and (block := stream.next_block()) not in (None, b"data: [DONE]"):
                count -= 1
                chunk = json.loads(block[len(b"data: "):])
                if "error" in chunk:
                    self.ledger.problem("%s failed: %r" % (subject.name, chunk))
                    return
                for choice in chunk["choices"]:
                    chat = subject.api == "chat"
                    text += (choice["delta"].get("content") or "") if chat else choice["text"]
                    finish = choice["finish_reason"] or finish
        if finish is not None:
            self.openai_ended(subject, text, finish)
        else:
            self.ledger.count(admitted=1, untold=1)
            self.ledger.answer(subject, tuple(text), False)
            if not leaves:
                self.ledger.problem("%s: a stream without its end" % subject.name)

    def openai_leave(self):
        self.openai_stream(leaves=True)

    # What is no request to generate

    def bad_body(self):
        path = self.random.choice(["/execute", "/v1/chat/completions", "/v1/completions", "/cancel",
                                   "/tokenize"])
        answer = self.worker.request("POST", path, self.random.choice(BAD_BODIES))
        if not (400 <= answer.status < 500 or path == "/tokenize"):
            self.ledger.problem("a bad body on %s: %r" % (path, answer.body))

    def bad_bytes(self):
        with self.worker.connect() as connection:
            try:
                connection.send(self.random.choice(BAD_BYTES))
                connection.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it may have closed already
            if not connection.closed_by_peer():
                self.ledger.problem("bad bytes left a connection open")

    def oversize(self):
        head = {"Content-Length": str(3_000_000 + self.random.randrange(10**9))}
        with self.worker.connect() as connection:
            connection.send(request_bytes("POST", "/execute", b"{", head))
            if connection.response().status != 413:
                self.ledger.problem("an oversize body was not refused")

    def scrape(self):
        with self.worker.connect() as connection:
            for path in ("/metrics", "/health", "/livez", "/readyz"):
                if (answer := connection.request("GET", path)).status != 200:
                    self.ledger.problem("%s: %d %r" % (path, answer.status, answer.body))

    def tokenize(self):
        text = self.some().body["prompt"]
        with self.worker.connect() as connection:
            ids = connection.request("POST", "/tokenize", {"prompt": text, "add_special": False})
            back = connection.request("POST", "/detokenize", {"tokens": ids.json()["tokens"]})
        if back.json()["content"].strip() != text.strip():
            self.ledger.problem("tokens of %r are %r" % (text, back.json()))

    def unknown_cancel(self):
        job = "never %d" % self.random.getrandbits(40)
        if self.worker.request("POST", "/cancel", {"job_id": job}).status != 404:
            self.ledger.problem("a job that never was could be cancelled")
