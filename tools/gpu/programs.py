"""Where the programs lie that are checked, and how one is run: with a limit, its output in the log."""

import dataclasses
import glob
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

# A build has them in these folders, a bundle all in the first.
FOLDERS = ["bin", "bench", "tests/conformance", "tests/golden", "src/backends/cuda"]
WORKER = "llorch-cuda-candled"
TESTS = ["conformance", "golden_test", "one_answer_test", "golden_prefix_test"]
BENCHES = ["model_bench", "cuda_probe", "random_model", "load_bench"]
DEVICE_TESTS = "cuda_*_test"
MOST_OUTPUT = 1 << 20  # bytes of a program's that are looked at: its last


class Programs:
    """Of one folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def find(self, name):
        """Its path; None if there is no such program."""
        return next((path for sub in FOLDERS if _runs(path := self.folder / sub / name)), None)

    def device_tests(self):
        """Names of the tests of src/backends/cuda."""
        return sorted({path.name for sub in FOLDERS
                       for path in (self.folder / sub).glob(DEVICE_TESTS) if _runs(path)})


def _runs(path):
    return path.is_file() and os.access(path, os.X_OK)


@dataclasses.dataclass
class Done:
    status: int  # of a signal: minus its number, as subprocess has it
    output: str
    seconds: float
    timed_out: bool = False

    @property
    def ok(self):
        return self.status == 0 and not self.timed_out

    def why(self):
        """Of a failure, on one line."""
        if self.timed_out:
            return "stopped after %.0f s" % self.seconds
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return "exit %d%s" % (self.status, ": " + lines[-1][:160] if lines else "")


class Budget:
    """Seconds of a part: what is run in it gets no more than is left of them."""

    def __init__(self, seconds, outer=None):
        self.end = time.monotonic() + seconds
        if outer:
            self.end = min(self.end, outer.end)

    def left(self):
        return max(0.0, self.end - time.monotonic())

    def of(self, seconds):
        return min(seconds, self.left())


class Log:
    """What every program said, one after the other, in a file."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")

    def add(self, command, done):
        with self.path.open("a") as file:
            file.write("== %s\n%s\n== exit %d after %.1f s%s\n\n" % (
                " ".join(command), done.output.rstrip(), done.status, done.seconds,
                ", stopped" if done.timed_out else ""))


def library_folder(name):
    """Where a shared library lies that the loader does not find by itself: in a toolkit, or among
    Python's packages. None if it needs no telling, or is nowhere."""
    finds = [sys.executable, "-c", "import ctypes; ctypes.CDLL(%r)" % name]
    if subprocess.run(finds, stderr=subprocess.DEVNULL).returncode == 0:
        return None
    patterns = ["/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib",
                *(folder + "/nvidia/*/lib" for folder in sys.path if folder)]
    return next((os.path.dirname(found) for pattern in patterns
                 for found in sorted(glob.glob(pattern + "/" + name))), None)


class Runner:
    def __init__(self, root, log, libraries=None):
        """`libraries`: a folder of shared ones that programs may need."""
        self.root, self.log = pathlib.Path(root), log
        paths = [path for path in (os.environ.get("LD_LIBRARY_PATH"), libraries) if path]
        self.env = {"LD_LIBRARY_PATH": ":".join(paths)} if paths else {}

    def run(self, command, limit, env=None):
        """Runs it in the source's root, whence tests read their files. Past its limit it is killed,
        with all that it has started."""
        command = [str(word) for word in command]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LLORCH_", "GTEST_"))}
        begin = time.monotonic()
        # A file, since a pipe may be held open by what the program has left behind.
        with tempfile.TemporaryFile() as out:
            process = subprocess.Popen(command, cwd=self.root,
                                       env={**clean, **self.env, **(env or {})},
                                       stdin=subprocess.DEVNULL, stdout=out,
                                       stderr=subprocess.STDOUT, start_new_session=True)
            timed_out = False
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                timed_out = True
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    status = process.wait()
            seconds = time.monotonic() - begin
            out.seek(max(0, out.seek(0, os.SEEK_END) - MOST_OUTPUT))
            done = Done(status, out.read().decode(errors="replace"), seconds, timed_out)
        self.log.add(command, done)
        return done
