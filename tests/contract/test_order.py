"""Who goes first, and what is known of when: priorities and deadlines (contract, section 5)."""


def test_a_higher_priority_goes_first(gated, job):
    with gated("--max-batch", "1") as (worker, gate):
        with worker.open_execute(job(max_tokens=2, priority=100)) as running:
            gate.let(1)
            assert running.next()["type"] == "started"
            names = {"low": -1, "first": None, "second": 0, "high": 100}
            waiting = {name: worker.open_execute(job(max_tokens=1, priority=priority))
                       for name, priority in names.items()}
            gate.let(1)
            assert running.rest()[-1]["type"] == "end"
        for name in ("high", "first", "second", "low"):
            gate.let(1)
            # No step is left for the others: whoever ends had the one that there was.
            with waiting[name] as stream:
                assert stream.rest()[-1]["type"] == "end"


def test_a_higher_priority_takes_the_place_of_a_lower_one(gated, job):
    with gated("--max-batch", "1") as (worker, gate):
        with worker.open_execute(job(max_tokens=100, priority=-1)) as low:
            gate.let(2)
            assert low.next()["type"] == "started"
            with worker.open_execute(job(max_tokens=2)) as high:
                gate.let(3)  # the first may be the one that has begun
                assert high.rest()[-1]["type"] == "end"
            gate.open()
            assert low.rest()[-1]["tokens_out"] == 100
