"""What a request has drawn, by the fake backend's meter: told where there is one, and all requests
together what the device drew meanwhile."""

import concurrent.futures
import time

import pytest

import prometheus
import test_openai
import test_openai_chat
from worker import Worker

STEP = 7  # joules
TOTAL = "worker_energy_joules_total"


@pytest.fixture
def metered(binary, model):
    def start(*args, **env):
        return Worker(binary, ["--model", model, *args],
                      {"LLORCH_FAKE_" + key.upper(): value for key, value in env.items()})

    return start


def scrape(worker):
    return prometheus.parse(worker.request("GET", "/metrics").body.decode())


def drawn(worker):
    return scrape(worker)[TOTAL].value()


def end_of(worker, body):
    end = worker.execute(body)[-1][1]
    assert end["type"] == "end"
    return end


def paths(worker, job, **fields):
    """Calls that run a request each, every one in another form, and give its energy."""
    completion = test_openai.completion(**fields)
    chat = test_openai_chat.chat(**fields)
    streamed = {"stream": True, "stream_options": {"include_usage": True}}

    def answered(path, body):
        return worker.request("POST", path, body).json()["usage"].get("energy_j")

    def last_chunk(path, body):
        return test_openai.chunks(worker, {**body, **streamed}, path)[0][-1]["usage"].get("energy_j")

    return [lambda: end_of(worker, job(**fields)).get("energy_j"),
            lambda: answered("/v1/completions", completion),
            lambda: answered("/v1/chat/completions", chat),
            lambda: last_chunk("/v1/completions", completion),
            lambda: last_chunk("/v1/chat/completions", chat)]


def test_without_a_meter_nothing_is_told(worker, job):
    assert [path() for path in paths(worker, job)] == [None] * 5
    assert "energy_j" not in end_of(worker, job())
    usage = worker.request("POST", "/v1/completions", test_openai.completion()).json()["usage"]
    assert "energy_j" not in usage
    assert TOTAL not in scrape(worker)


def test_alone_a_request_draws_all_of_its_steps(metered, job):
    with metered("--speculate", "off", step_joules=STEP) as worker:
        # The step of the prompt gives the first token.
        for max_tokens in (1, 2, 30):
            before = drawn(worker)
            for path in paths(worker, job, max_tokens=max_tokens):
                assert path() == max_tokens * STEP
            assert drawn(worker) - before == 5 * max_tokens * STEP


def test_the_meter_is_a_counter(metered, job):
    with metered(step_joules=STEP) as worker:
        before = scrape(worker)
        assert before[TOTAL].type == "counter"
        worker.execute(job(max_tokens=20))
        after = scrape(worker)
        steps = [f["worker_steps_total"].value() for f in (before, after)]
        assert after[TOTAL].value() - before[TOTAL].value() == (steps[1] - steps[0]) * STEP > 0
        # The warm-up has drawn some too.
        assert before[TOTAL].value() > 0


@pytest.mark.parametrize("meter_joules", [0, 10 * STEP, 33])
def test_together_requests_draw_what_the_device_does(metered, job, meter_joules):
    """Also with a meter that moves only now and then: it lags by less than one of its moves at the
    beginning and at the end, which is less than 2 % of all."""
    with metered("--max-batch", "4", step_joules=STEP, meter_joules=meter_joules) as worker:
        before, steps = drawn(worker), scrape(worker)["worker_steps_total"].value()
        calls = [call for i in range(24) for call in paths(worker, job, max_tokens=30 + 7 * i)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            energies = list(pool.map(lambda call: call(), calls))
        total = drawn(worker) - before
        steps = scrape(worker)["worker_steps_total"].value() - steps
    assert steps * STEP > 100 * meter_joules
    assert total == pytest.approx(steps * STEP, abs=meter_joules)
    assert min(energies) >= 0
    assert sum(energies) == pytest.approx(total, rel=0.05)


def test_one_after_the_other_with_a_meter_that_lags(metered, job):
    """Requests that begin and end between two moves of the meter."""
    with metered("--speculate", "off", step_joules=STEP, meter_joules=10 * STEP) as worker:
        before = drawn(worker)
        energies = [end_of(worker, job(max_tokens=3))["energy_j"] for _ in range(200)]
        total = drawn(worker) - before
    assert total == pytest.approx(200 * 3 * STEP, abs=10 * STEP)
    assert sum(energies) == pytest.approx(total, rel=0.05)


def test_a_rest_is_nobodys(metered, job):
    watts, step_s, tokens = 1000, 0.02, 20
    with metered("--speculate", "off", watts=watts, step_ms=round(step_s * 1000)) as worker:
        begin = drawn(worker)
        energies, rests = [], 0
        for _ in range(3):
            energies.append(end_of(worker, job(max_tokens=tokens))["energy_j"])
            worker.wait_health(running=0, waiting=0)
            rest = drawn(worker)
            time.sleep(0.3)
            rests += drawn(worker) - rest
        total = drawn(worker) - begin
    assert rests >= 3 * 0.3 * watts
    # A step takes its time at least. Figures are rounded to four digits.
    assert all(energy >= tokens * step_s * watts * 0.999 for energy in energies)
    assert sum(energies) <= (total - rests) * 1.001


def test_a_repeat_tells_the_same(metered, job):
    body = job(max_tokens=9)
    with metered(step_joules=STEP) as worker:
        first = end_of(worker, body)
        before = drawn(worker)
        assert end_of(worker, body) == first and first["energy_j"] > 0
        assert drawn(worker) == before
