"""Contract, section 5: GET /metrics. Format, names, types and buckets; and that every figure has
exactly the value that the requests before it make."""

import json

import prometheus_client.parser
import pytest

import prometheus
from worker import Worker

EOS = 2  # of models/tiny

# Names, types and buckets of vLLM: vllm/v1/metrics/loggers.py. Its labels are model_name, engine.
VLLM_GAUGES = ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"]
VLLM_COUNTERS = ["prefix_cache_queries_total", "prefix_cache_hits_total", "num_preemptions_total",
                 "prompt_tokens_total", "generation_tokens_total", "request_success_total",
                 "spec_decode_num_drafts_total", "spec_decode_num_draft_tokens_total",
                 "spec_decode_num_accepted_tokens_total"]
FIRST_TOKEN = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
               7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0]
TOKEN = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
         20.0, 40.0, 80.0]
REQUEST = [0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
           240.0, 480.0, 960.0, 1920.0, 7680.0]
UP_TO_CONTEXT = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]  # of 2048 tokens
VLLM_HISTOGRAMS = {
    "iteration_tokens_total": [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384],
    "time_to_first_token_seconds": FIRST_TOKEN,
    "inter_token_latency_seconds": TOKEN,
    "request_time_per_output_token_seconds": TOKEN,
    "e2e_request_latency_seconds": REQUEST,
    "request_queue_time_seconds": REQUEST,
    "request_inference_time_seconds": REQUEST,
    "request_prefill_time_seconds": REQUEST,
    "request_decode_time_seconds": REQUEST,
    "request_prompt_tokens": UP_TO_CONTEXT,
    "request_generation_tokens": UP_TO_CONTEXT,
}
OUTCOMES = ["max_tokens", "eos", "stop_sequence", "cancelled", "timeout", "vram_oom",
            "inference_failed", "refused"]
OF_ENDED_REQUESTS = ["worker_inference_duration_ms"] + [
    "vllm:" + name for name in VLLM_HISTOGRAMS if name.startswith(("e2e_", "request_"))]


def scrape(worker):
    """All families, after a look at the format."""
    status, headers, body = worker.request("GET", "/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = prometheus.parse(body.decode())
    reference = prometheus_client.parser.text_string_to_metric_families(body.decode())
    assert {(s.name, tuple(sorted(s.labels.items()))): s.value
            for family in reference for s in family.samples} == {
                key: value for family in families.values() for key, value in family.samples.items()}
    return families


def outcomes(families):
    family = families["worker_requests_total"]
    return {name: family.value(outcome=name) for name in OUTCOMES}


@pytest.fixture(scope="module")
def fresh(binary, model):
    """What a worker tells that nobody has asked for anything."""
    with Worker(binary, ["--model", model]) as worker:
        return scrape(worker)


def test_own_families(fresh):
    assert [f["outcome"] for f in fresh["worker_requests_total"].labels()] == OUTCOMES
    for name, kind in [("worker_requests_total", "counter"), ("worker_tokens_in_total", "counter"),
                       ("worker_tokens_generated_total", "counter"),
                       ("worker_inference_duration_ms", "histogram"),
                       ("worker_vram_bytes", "gauge"), ("worker_uptime_seconds", "gauge"),
                       ("worker_steps_total", "counter"), ("worker_kv_blocks", "gauge"),
                       ("worker_connections", "gauge"),
                       ("process_resident_memory_bytes", "gauge")]:
        assert fresh[name].type == kind, name
    assert fresh["worker_vram_bytes"].value() > 0
    assert fresh["worker_uptime_seconds"].value() > 0
    assert fresh["worker_connections"].value() == 1
    assert fresh["process_resident_memory_bytes"].value() > 1e6
    assert {f["state"] for f in fresh["worker_kv_blocks"].labels()} == {"used", "free"}


def test_families_of_vllm(fresh):
    labels = {"model_name": "tiny", "engine": "0"}
    for kind, names in [("gauge", VLLM_GAUGES), ("counter", VLLM_COUNTERS),
                        ("histogram", VLLM_HISTOGRAMS)]:
        for name in names:
            family = fresh["vllm:" + name]
            assert family.type == kind, name
            assert all(labels.items() <= have.items() for have in family.labels()), name
            extra = {key for have in family.labels() for key in have} - set(labels)
            assert extra == {"histogram": {"le"}, "gauge": set(), "counter": set()}[kind] | (
                {"finished_reason"} if name == "request_success_total" else set())
    for name, bounds in VLLM_HISTOGRAMS.items():
        # As the client library of vLLM writes them.
        assert fresh["vllm:" + name].bounds() == [str(float(b)) for b in bounds] + ["+Inf"], name
    assert [f["finished_reason"] for f in fresh["vllm:request_success_total"].labels()] == [
        "stop", "length", "abort", "error"]
    assert {name for name in fresh if name.startswith("vllm:")} == {
        "vllm:" + name for name in [*VLLM_GAUGES, *VLLM_COUNTERS, *VLLM_HISTOGRAMS,
                                    "cache_config_info"]}


def test_what_an_endpoint_picker_extracts(fresh):
    """A family that is missing is an error on every poll; block labels must parse as integers."""
    for name in VLLM_GAUGES:
        assert fresh["vllm:" + name].type == "gauge"
        assert len(fresh["vllm:" + name].samples) == 1
        assert fresh["vllm:" + name].value() == 0
    info = fresh["vllm:cache_config_info"]
    assert (info.type, info.value()) == ("gauge", 1)
    [labels] = info.labels()
    assert int(labels["block_size"]) == 16
    blocks = fresh["worker_kv_blocks"]
    assert int(labels["num_gpu_blocks"]) == blocks.value(state="free") + blocks.value(state="used")


def test_nothing_is_counted_before_the_first_request(fresh):
    for name, family in fresh.items():
        if family.type == "counter":
            assert set(family.samples.values()) == {0}, name
        elif family.type == "histogram":
            assert family.count() == family.sum() == 0, name


def test_head_and_methods(worker):
    head = worker.request("HEAD", "/metrics")
    assert head.status == 200 and head.body == b""
    assert int(head.headers["content-length"]) > 10_000
    assert worker.request("POST", "/metrics", {}).status == 405
    assert worker.request("GET", "/metrics?name=x").status == 200


def test_a_model_name_is_escaped(binary, model):
    name = 'a "b"\\c\nd'
    with Worker(binary, ["--model", model, "--model-name", name]) as worker:
        families = scrape(worker)
    assert families["vllm:num_requests_running"].labels() == [{"model_name": name, "engine": "0"}]


class Tally:
    """What the clients have seen of the requests that began."""

    def __init__(self):
        self.prompts, self.cached, self.outputs = [], [], []  # tokens
        self.ended = []  # (prompt, output) of those that ended well

    def add(self, events):
        """The events of an execution with logprobs, so that each token has its own."""
        started = [e for e in events if e["type"] == "started"]
        if not started:
            return
        tokens = sum(e["type"] == "token" for e in events)
        self.prompts.append(started[0]["prompt_tokens"])
        self.cached.append(started[0]["cached_tokens"])
        self.outputs.append(tokens)
        if events[-1]["type"] == "end":
            assert events[-1]["tokens_out"] == tokens
            self.ended.append((started[0]["prompt_tokens"], tokens))

    def check(self, families):
        def count(name):
            return families[name].count()

        for name in ["worker_tokens_in_total", "vllm:prompt_tokens_total"]:
            assert families[name].value() == sum(self.prompts), name
        for name in ["worker_tokens_generated_total", "vllm:generation_tokens_total"]:
            assert families[name].value() == sum(self.outputs), name
        assert families["vllm:prefix_cache_queries_total"].value() == sum(self.prompts)
        assert families["vllm:prefix_cache_hits_total"].value() == sum(self.cached)
        first = [n for n in self.outputs if n > 0]
        assert count("vllm:time_to_first_token_seconds") == len(first)
        assert count("vllm:inter_token_latency_seconds") == sum(first) - len(first)
        for name in OF_ENDED_REQUESTS:
            assert count(name) == len(self.ended), name
        assert families["vllm:request_prompt_tokens"].sum() == sum(p for p, _ in self.ended)
        assert families["vllm:request_generation_tokens"].sum() == sum(n for _, n in self.ended)
        seconds = families["vllm:request_inference_time_seconds"].sum()
        assert families["worker_inference_duration_ms"].sum() == pytest.approx(seconds * 1000)
        assert families["worker_steps_total"].value() == count("vllm:iteration_tokens_total")
        assert families["worker_kv_blocks"].value(state="used") == 0
        for name in VLLM_GAUGES:
            assert families["vllm:" + name].value() == 0, name


def completion(worker, **fields):
    answer = worker.request("POST", "/v1/completions",
                            {"model": "tiny", "temperature": 0, **fields})
    assert answer.status == 200, answer.body
    return answer.json()


def test_every_ended_request_is_counted_once(binary, model, job):
    tally = Tally()
    with Worker(binary, ["--model", model]) as worker:
        for fields in [{}, {"max_tokens": 1}, {"prompt": "Who lives here?", "max_tokens": 30}]:
            tally.add([e for _, e in worker.execute(job(logprobs=0, temperature=0, **fields))])
        events = [e for _, e in worker.execute(job(logprobs=0, temperature=0))]
        text = "".join(e["t"] for e in events if e["type"] == "token")
        stopped = worker.execute(job(logprobs=0, temperature=0, stop=[text[2:5]]))
        assert stopped[-1][1]["stop_reason"] == "STOP_SEQUENCE"
        for done in [events, [e for _, e in stopped]]:
            tally.add(done)
        # A repeat is no request of the engine's.
        body = job(logprobs=0, temperature=0)
        tally.add([e for _, e in worker.execute(body)])
        worker.execute(body)
        # The fake model's next token is the last one's neighbour.
        usage = completion(worker, prompt=[EOS - 1], max_tokens=5)["usage"]
        assert usage["completion_tokens"] == 0
        tally.prompts.append(1)
        tally.outputs.append(0)
        tally.ended.append((1, 0))
        families = scrape(worker)
    tally.check(families)
    assert outcomes(families) == {**dict.fromkeys(OUTCOMES, 0), "max_tokens": 5, "stop_sequence": 1,
                                  "eos": 1}
    success = families["vllm:request_success_total"]
    assert [success.value(finished_reason=r) for r in ["stop", "length", "abort", "error"]] == [
        2, 5, 0, 0]


def test_what_the_prefix_cache_found_is_counted(binary, model, job):
    tally = Tally()
    with Worker(binary, ["--model", model]) as worker:
        for _ in range(3):
            body = job(logprobs=0, prompt="Once upon a time " * 40)
            tally.add([e for _, e in worker.execute(body)])
        families = scrape(worker)
    assert tally.cached[0] == 0 and tally.cached[1] > 0
    tally.check(families)


def test_every_cancelled_request_is_counted_once(gated, job):
    tally = Tally()
    with gated("--max-batch", "1", "--max-queue", "1") as (worker, gate):
        def cancel(body):
            assert worker.request("POST", "/cancel", {"job_id": body["job_id"]}).status == 202

        decoding, waiting = job(max_tokens=100, logprobs=0), job(logprobs=0)
        with worker.open_execute(decoding) as first, worker.open_execute(waiting) as second:
            gate.let(3)
            events = [first.next() for _ in range(4)]
            busy = scrape(worker)
            assert [busy["vllm:" + name].value() for name in VLLM_GAUGES[:2]] == [1, 1]
            assert busy["vllm:kv_cache_usage_perc"].value() > 0
            assert busy["worker_kv_blocks"].value(state="used") > 0
            assert worker.open_execute(job()).status == 429
            assert worker.request("POST", "/v1/completions",
                                  {"model": "tiny", "prompt": "a"}).status == 429
            cancel(waiting)
            gate.let(1)
            tally.add(second.rest())
            cancel(decoding)
            gate.open()
            events += first.rest()
            assert events[-1]["code"] == "CANCELLED"
            tally.add(events)
        worker.wait_health(running=0, waiting=0)
        gate.shut()
        prefilling = job(prompt="Once upon a time " * 400, logprobs=0)
        with worker.open_execute(prefilling) as stream:
            events = [stream.next()]  # it is part of a step
            cancel(prefilling)
            gate.open()
            events += stream.rest()
            assert [e["type"] for e in events] == ["started", "error"]
            tally.add(events)
        with worker.open_execute(job(max_tokens=2000, logprobs=0)) as left:
            started = left.next()
        worker.wait_health(running=0, waiting=0)
        families = scrape(worker)
    # How far the last one came before its client's leaving was noticed is for the worker to tell.
    tally.prompts.append(started["prompt_tokens"])
    tally.cached.append(started["cached_tokens"])
    tally.outputs.append(int(families["worker_tokens_generated_total"].value() -
                             sum(tally.outputs)))
    assert tally.outputs[-1] < 2000
    tally.check(families)
    assert outcomes(families) == {**dict.fromkeys(OUTCOMES, 0), "cancelled": 4, "refused": 2}
    assert families["vllm:request_success_total"].value(finished_reason="abort") == 4


def test_what_is_late_or_comes_too_late_is_counted(binary, model, job):
    with Worker(binary, ["--model", model, "--request-timeout", "1"],
                {"LLORCH_FAKE_STEP_MS": "20"}) as worker:
        events = [e for _, e in worker.execute(job(max_tokens=2000, logprobs=0))]
        assert events[-1]["code"] == "TIMEOUT"
        late = worker.request("POST", "/execute", job(max_tokens=500), {"X-Deadline-Ms": "1000"})
        assert late.status == 429
        with worker.open_execute(job(max_tokens=2000, logprobs=0)) as running:
            running.until("started")
            assert worker.request("POST", "/shutdown").status == 202
            assert worker.open_execute(job()).status == 503
            assert worker.request("POST", "/tokenize", {"prompt": "a"}).status == 200
            draining = scrape(worker)  # a worker that drains is still watched
            assert draining["vllm:num_requests_running"].value() == 1
            assert outcomes(draining)["refused"] == 2
            assert outcomes(draining)["timeout"] == 1


def test_no_family_names_a_job(worker, job):
    body = job(job_id="a-name-like-no-other")
    worker.execute(body)
    assert b"a-name-like-no-other" not in worker.request("GET", "/metrics").body


def test_a_scrape_agrees_with_health(gated, job):
    with gated("--max-batch", "2") as (worker, gate):
        streams = [worker.open_execute(job(max_tokens=50, logprobs=0)) for _ in range(5)]
        gate.let(2)
        for stream in streams[:2]:
            stream.until("token")
        health, families = json.loads(worker.request("GET", "/health").body), scrape(worker)
        assert (health["running"], health["waiting"]) == (2, 3)
        for name, key in zip(VLLM_GAUGES, ["running", "waiting", "kv_usage"]):
            assert families["vllm:" + name].value() == pytest.approx(health[key])
        gate.open()
        for stream in streams:
            stream.rest()
            stream.close()
