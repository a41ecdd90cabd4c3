"""Contract, section 2: exit codes and the one line a failed start leaves on stdout and stderr."""

import json
import shutil
import socket
import subprocess

import pytest

from worker import Worker


def failed_start(binary, *args, env=None):
    """The exit status and the `error` line, checked to be the same on both outputs."""
    done = subprocess.run([binary, *map(str, args)], capture_output=True, text=True, timeout=120,
                          env=env, stdin=subprocess.DEVNULL)
    last = done.stdout.splitlines()[-1]
    assert done.stderr.splitlines()[-1] == last
    assert len(done.stderr.splitlines()) == 1, "one line, no trace: " + done.stderr
    line = json.loads(last)
    assert line["event"] == "error" and line["level"] == "error" and line["worker_id"]
    assert line["exit_code"] == done.returncode
    return done.returncode, line


@pytest.mark.parametrize("args, named", [
    (["--nonsense"], "--nonsense"),
    (["--port", "70000"], "--port"),
    (["--callback-url", "https://pool/ready"], "--callback-url"),
    (["--callback-url", "nonsense"], "--callback-url"),
    (["--quantize", "q3_k"], "--quantize"),
    (["--api-key-file", "f"], "--api-key-file"),
    (["--result-retention", "-1"], "--result-retention"),
    (["--resume-grace", "soon"], "--resume-grace"),
    (["--verify-against-cpu", "-1"], "--verify-against-cpu"),
    (["--verify-against-cpu", "1"], "--verify-against-cpu"),  # the fake worker makes its results up
    (["--cuda-device", "0"], "--cuda-device"),
    (["--metal-device", "0"], "--metal-device"),
    (["--context-length", "999999"], "--context-length"),
])
def test_bad_arguments_are_2_and_named(binary, model, args, named):
    status, line = failed_start(binary, "--model", model, "--port", "0", *args)
    assert status == 2
    assert named in line["message"]


def test_no_model_is_2(binary):
    status, line = failed_start(binary)
    assert status == 2 and "--model" in line["message"]


def test_help_and_version_need_nothing(binary):
    for flag in ("--help", "--version"):
        done = subprocess.run([binary, flag], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "llorch-fake-candled" in done.stdout
    assert "--worker-id" in subprocess.run([binary, "--help"], capture_output=True, text=True).stdout


def model_with(folder, model, **changes):
    """A copy of `model` whose config.json has these keys changed (None: removed)."""
    copy = folder / "model"
    shutil.copytree(model, copy)
    config = json.loads((copy / "config.json").read_text())
    for key, value in changes.items():
        config.pop(key, None)
        if value is not None:
            config[key] = value
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_a_missing_model_is_10(binary, tmp_path):
    status, line = failed_start(binary, "--model", tmp_path / "none", "--port", "0")
    assert status == 10 and str(tmp_path / "none") in line["message"]


def test_an_unknown_architecture_is_10_with_the_contracts_text(binary, model, tmp_path):
    copy = model_with(tmp_path, model, model_type="falcon", architectures=["FalconForCausalLM"])
    status, line = failed_start(binary, "--model", copy, "--port", "0")
    assert status == 10
    assert "unsupported architecture 'falcon'; supported: llama, mistral, " in line["message"]


@pytest.mark.parametrize("changes, named", [
    (dict(quantization_config={"quant_method": "gptq"}), "quantization_config"),
    (dict(vision_config={"hidden_size": 8}), "vision_config"),
    (dict(model_type="gemma3", vision_config={}), "unsupported architecture 'gemma3'"),
    (dict(model_type="gemma3", vision_config={}), "vision_config"),
    (dict(audio_config={}), "audio_config"),
    (dict(model_type="gemma3_text", use_bidirectional_attention=True), "use_bidirectional_attention"),
    (dict(hidden_act="relu2"), "hidden_act: 'relu2'"),
    (dict(rope_scaling={"rope_type": "mrope"}), "rope_type: 'mrope'"),
    (dict(rope_scaling={"type": "longrope"}), "rope_type: 'longrope'"),
    (dict(model_type="phi3", rope_scaling={"type": "dynamic", "factor": 2.0}), "rope_type: 'dynamic'"),
    (dict(partial_rotary_factor=0.5), "partial_rotary_factor"),
    (dict(layer_types=["chunked_attention"] * 99), "layer_types"),
    (dict(per_layer_config={"0": {}}), "per_layer_config"),
    (dict(model_type=None, architectures=["T5ForConditionalGeneration"]), "'T5ForConditionalGeneration'"),
])
def test_what_is_not_supported_is_10_and_named(binary, model, tmp_path, changes, named):
    status, line = failed_start(binary, "--model", model_with(tmp_path, model, **changes), "--port", "0")
    assert status == 10
    assert named in line["message"]


def test_a_truncated_model_is_10_and_names_the_file(binary, model, tmp_path):
    copy = model_with(tmp_path, model)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    status, line = failed_start(binary, "--model", copy, "--port", "0")
    assert status == 10 and "model.safetensors" in line["message"]


def test_a_lying_shape_is_10_and_names_the_tensor(binary, model, tmp_path):
    copy = model_with(tmp_path, model, intermediate_size=8)
    status, line = failed_start(binary, "--model", copy, "--port", "0")
    assert status == 10
    assert "model.safetensors: model.layers.0.mlp." in line["message"]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_or_broken_json_is_10_and_named(binary, model, tmp_path, name):
    copy = model_with(tmp_path, model)
    (copy / name).write_text("{")
    status, line = failed_start(binary, "--model", copy, "--port", "0")
    assert status == 10 and name in line["message"]
    (copy / name).unlink()
    status, line = failed_start(binary, "--model", copy, "--port", "0")
    assert status == 10 and name in line["message"]


def test_too_little_kv_memory_is_12_with_its_figures(binary, model):
    status, line = failed_start(binary, "--model", model, "--port", "0", "--kv-memory", "1000")
    assert status == 12
    assert line["free_bytes"] == 1000
    assert line["needed_bytes"] - line["free_bytes"] == line["short_bytes"] > 0


def test_a_taken_port_is_13(binary, model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, line = failed_start(binary, "--model", model, "--host", "127.0.0.1", "--port", port)
    assert status == 13 and str(port) in line["message"]


def test_an_address_of_another_machine_is_13(binary, model):
    status, _ = failed_start(binary, "--model", model, "--host", "192.0.2.1", "--port", "0")
    assert status == 13


def test_flags_come_from_environment_and_file_too(binary, model, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model": model, "model-name": "from-file", "max-batch": 2}))
    env = {"LLORCH_WORKER_ID": "from-environment", "LLORCH_CONFIG": str(config)}
    with Worker(binary, [], env) as worker:
        startup = worker.wait_event("startup")
        assert startup["worker_id"] == "from-environment"
        assert startup["model"] == "from-file"
        assert worker.health()["model"] == "from-file"
