"""Peers of bench/peers beside llama.cpp. What each of them cannot do it does not support: the case is
then measured without it.

An OpenVINO model is made from a folder that random_model wrote, in the Python that has openvino and
optimum-intel (`pip install "optimum-intel[openvino]"`); the figure comes from running this file there.
"""

import json
import os
import pathlib
import subprocess
import sys
import time


class IkLlama:
    """ik_llama.cpp, whose llama-bench reads the same files; it repacks them as it loads."""

    def __init__(self, llama_bench, threads, tokens):
        self.program, self.threads, self.tokens = llama_bench, threads, tokens

    def supports(self, kind, case):
        return case in ("prefill-512", "decode-1")

    def bench(self, model, prompt, tokens):
        out = subprocess.run(
            [str(a) for a in (self.program, "-m", model, "-t", self.threads, "-p", prompt, "-n",
                              tokens, "-r", 1, "-rtr", 1, "-fa", 1, "-o", "json")],
            check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        return json.loads(out[out.index("["):])[0]["avg_ts"]

    def prefill(self, model, tokens):
        return self.bench(model, tokens, 0)

    def decode(self, model, sequences, depth):
        return self.bench(model, 0, self.tokens)


class OpenVino:
    """A Hugging Face folder of the same shape in OpenVINO's int8, or int4 in groups of 32."""

    WEIGHTS = {"Q8_0": ["--weight-format", "int8"],
               "Q4_0": ["--weight-format", "int4", "--sym", "--group-size", "32"]}

    def __init__(self, python, random_model, out, threads, tokens):
        self.python, self.random_model, self.out = python, random_model, out
        self.threads, self.tokens = threads, tokens

    def supports(self, kind, case):
        return kind in self.WEIGHTS and case in ("prefill-512", "decode-1")

    def model(self, model):
        kind = next(k for k in self.WEIGHTS if k.lower() in model.name)
        made = self.out / ("openvino-" + kind.lower())
        if not (made / "openvino_model.bin").exists():
            folder = self.out / "1b-folder"
            if not folder.exists():
                subprocess.run([self.random_model, folder], check=True)
            subprocess.run([self.python.parent / "optimum-cli", "export", "openvino", "--model",
                            folder, "--task", "text-generation-with-past", *self.WEIGHTS[kind],
                            made], check=True, stdout=sys.stderr)
        return made

    def figure(self, model, prompt, tokens):
        out = subprocess.run([str(a) for a in (self.python, __file__, self.model(model),
                                               self.threads, prompt, tokens)],
                             check=True, text=True, stdout=subprocess.PIPE).stdout
        return float(out.split()[-1])

    def prefill(self, model, tokens):
        return self.figure(model, tokens, 0)

    def decode(self, model, sequences, depth):
        return self.figure(model, 1, self.tokens)


def openvino_tokens_a_second(folder, threads, prompt, tokens):
    """Of a prompt, or if `tokens` is not 0 of as many steps behind it, after a run to warm up."""
    import numpy as np
    import openvino as ov

    core = ov.Core()
    hints = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "bf16"}
    request = core.compile_model(folder / "openvino_model.xml", "CPU", hints).create_infer_request()
    rng = np.random.default_rng(1)

    def step(begin, count):
        """Everything is computed before this returns."""
        request.infer({"input_ids": rng.integers(3, 30000, (1, count)),
                       "attention_mask": np.ones((1, begin + count), np.int64),
                       "position_ids": np.arange(begin, begin + count, dtype=np.int64)[None],
                       "beam_idx": np.zeros(1, np.int32)})

    for _ in range(2):
        request.reset_state()
        start = time.monotonic()
        step(0, prompt)
        if tokens > 0:
            start = time.monotonic()
        for i in range(tokens):
            step(prompt + i, 1)
        seconds = time.monotonic() - start
    return (tokens or prompt) / seconds


if __name__ == "__main__":
    os.environ["OV_TELEMETRY_DISABLED"] = "1"
    print(openvino_tokens_a_second(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:])))
