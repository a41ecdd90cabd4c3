"""Where the binaries and the model are; see tests/e2e/CMakeLists.txt."""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "harness"))


@pytest.fixture(scope="session")
def binary():
    return os.environ["LLORCH_WORKER"]


@pytest.fixture(scope="session")
def model():
    return str(ROOT / "models" / "tiny")
