"""The released worker: one static, stripped file of at most 7.3 MB."""

import os
import subprocess

MAX_BYTES = 7_300_000
WORKER = os.environ["LLORCH_WORKER"]


def output_of(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, "LC_ALL": "C"}).stdout


def test_it_is_not_a_dynamic_executable():
    assert "not a dynamic executable" in output_of("ldd", WORKER)
    headers = output_of("readelf", "-lW", WORKER)
    assert "LOAD" in headers and "INTERP" not in headers


def test_it_is_stripped():
    sections = output_of("readelf", "-SW", WORKER)
    assert ".text" in sections
    assert ".symtab" not in sections and ".debug" not in sections


def test_it_is_small():
    assert os.path.getsize(WORKER) <= MAX_BYTES
