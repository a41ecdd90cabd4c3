"""A worker has exactly one backend, named when the build is configured."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def configure(backend, folder):
    """The exit status and the output, its lines joined, of configuring for `backend`."""
    done = subprocess.run(
        [os.environ["LLORCH_CMAKE"], "-S", str(ROOT), "-B", str(folder), "-G", "Ninja",
         "-DCMAKE_CXX_COMPILER=" + os.environ["LLORCH_CXX"], "-DLLORCH_BACKEND=" + backend],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, " ".join(done.stdout.split())


@pytest.mark.parametrize("backend", ["banana", "cpu;fake", ""])
def test_what_is_not_one_backend_is_refused_by_name(backend, tmp_path):
    status, output = configure(backend, tmp_path)
    assert status != 0
    assert f"LLORCH_BACKEND='{backend}' is not one of: cpu, cuda, metal, fake" in output


def test_one_backend_is_taken(tmp_path):
    status, output = configure("fake", tmp_path)
    assert status == 0, output
