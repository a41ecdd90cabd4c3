#!/usr/bin/env python3
"""The real `openai` client against the real worker, once for every family.

Serves models/tiny and each golden checkpoint that has a chat template, chats with it through the
client, and compares prompt, text and logprobs with transformers in f32; of a GGUF file, the prompt
alone with the template in its metadata. Needs tools/requirements.txt.
"""

import argparse
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "harness"))  # behind the packages: it has a gguf.py too

import openai  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from gguf import GGUFReader  # noqa: E402
from transformers.utils.chat_template_utils import _compile_jinja_template  # noqa: E402
from worker import Worker  # noqa: E402

MESSAGES = [{"role": "user", "content": "Where does Anna live?"}]
TOKENS = 24
GREEDY = {"temperature": 0, "max_tokens": TOKENS, "extra_body": {"ignore_eos": True}}


class Reference:
    """What transformers makes of the same chat."""

    def __init__(self, folder):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model.eval()
        self.prompt = self.tokenizer.apply_chat_template(MESSAGES, tokenize=False,
                                                         add_generation_prompt=True)
        self.prompt_ids = self.tokenizer(self.prompt, add_special_tokens=False).input_ids
        self.ids, self.rows = self.greedy()
        self.text = self.tokenizer.decode(self.ids, skip_special_tokens=True,
                                          clean_up_tokenization_spaces=False)

    def greedy(self):
        """generate()'s ids, and the log-softmax row before each."""
        config = self.model.generation_config
        config.eos_token_id = None
        config.do_sample, config.temperature, config.top_p, config.top_k = False, None, None, None
        ids = torch.tensor([self.prompt_ids])
        out = self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS,
                                  output_logits=True, return_dict_in_generate=True)
        return (out.sequences[0, ids.shape[1]:].tolist(),
                [torch.log_softmax(row[0], dim=-1) for row in out.logits])


class GgufReference:
    """The prompt that a GGUF file's own template makes. What the model says is golden_test's."""

    ids = rows = text = prompt_ids = None

    def __init__(self, folder):
        fields = GGUFReader(sorted(folder.glob("*.gguf"))[0]).fields
        tokens = fields["tokenizer.ggml.tokens"].contents()
        special = {}
        for name in ("bos", "eos"):
            field = fields.get("tokenizer.ggml.%s_token_id" % name)
            if field is not None:
                special[name + "_token"] = tokens[field.contents()]
        template = _compile_jinja_template(fields["tokenizer.chat_template"].contents())
        self.prompt = template.render(messages=MESSAGES, tools=None, documents=None,
                                      add_generation_prompt=True, **special)


def check_models(client, name):
    (model,) = client.models.list().data
    assert (model.id, model.object) == (name, "model"), model
    assert client.models.retrieve(name) == model
    expect(openai.NotFoundError, "model_not_found", lambda: client.models.retrieve("other"))


def expect(kind, code, call, param=None):
    try:
        call()
    except kind as error:
        assert error.code == code, error
        assert param is None or error.param == param, error
        assert error.message and error.response.headers["x-correlation-id"]
    else:
        raise AssertionError("no %s" % kind.__name__)


def check_chat(client, worker, name, reference):
    """The text, and how far any logprob is from the reference's."""
    served = worker.request("POST", "/apply-template", {"messages": MESSAGES})
    assert served.json() == {"prompt": reference.prompt}, served.body
    answer = client.chat.completions.create(model=name, messages=MESSAGES, logprobs=True,
                                            top_logprobs=5, **GREEDY)
    (choice,) = answer.choices
    text = choice.message.content
    assert reference.text in (text, None), (text, reference.text)
    assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
    assert reference.prompt_ids is None or (
        answer.usage.prompt_tokens == len(reference.prompt_ids))
    assert answer.usage.completion_tokens == TOKENS
    assert len(choice.logprobs.content) == TOKENS
    assert all(len(token.top_logprobs) == 5 for token in choice.logprobs.content)
    worst = 0.0
    for token, chosen, row in zip(choice.logprobs.content, reference.ids or (),
                                  reference.rows or ()):
        best = row.topk(5).values.tolist()
        worst = max([worst, abs(token.logprob - row[chosen].item())] +
                    [abs(t.logprob - b) for t, b in zip(token.top_logprobs, best)])
    assert worst <= 1e-3, worst

    chunks = list(client.chat.completions.create(model=name, messages=MESSAGES, stream=True,
                                                 stream_options={"include_usage": True}, **GREEDY))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert chunks[-2].choices[0].finish_reason == "length"
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (
        answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens)
    # The first answer has left the prompt's blocks of 16 tokens behind.
    assert usage.prompt_tokens_details.cached_tokens >= (usage.prompt_tokens - 1) // 16 * 16, usage
    parts = [{"role": "user", "content": [{"type": "text", "text": MESSAGES[0]["content"]}]},
             choice.message, {"role": "user", "content": "And now?"}]
    assert client.chat.completions.create(model=name, messages=parts, **GREEDY).choices
    return text, worst


def check_completions(client, worker, name, reference, text):
    prompt = worker.request("POST", "/tokenize", {"prompt": reference.prompt,
                                                  "add_special": False}).json()["tokens"]
    assert reference.prompt_ids in (prompt, None)
    answer = client.completions.create(model=name, prompt=prompt, logprobs=2, **GREEDY)
    (choice,) = answer.choices
    assert choice.text == text
    assert len(choice.logprobs.tokens) == len(choice.logprobs.top_logprobs) == TOKENS
    assert len(choice.logprobs.text_offset) == len(choice.logprobs.token_logprobs) == TOKENS
    stream = client.completions.create(model=name, prompt=prompt, stream=True, **GREEDY)
    assert "".join(c.choices[0].text for c in stream) == text
    sampled = [client.completions.create(model=name, prompt="Once", seed=seed, max_tokens=16,
                                         extra_body={"ignore_eos": True}).choices[0].text
               for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]


def check_refusals(client, name):
    def chat(**fields):
        return lambda: client.chat.completions.create(**{"model": name, "messages": MESSAGES,
                                                         **fields})

    expect(openai.NotFoundError, "model_not_found", chat(model="gpt-4o"), "model")
    expect(openai.BadRequestError, "context_length_exceeded", chat(max_tokens=10_000_000))
    expect(openai.BadRequestError, "decimal_above_max_value", chat(temperature=3), "temperature")
    expect(openai.BadRequestError, "unknown_parameter", chat(extra_body={"foo": 1}), "foo")
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    for field, value in (("n", 2), ("tools", [tool]), ("response_format", {"type": "json_object"}),
                         ("logit_bias", {"1": 5}), ("store", True), ("reasoning_effort", "low")):
        expect(openai.BadRequestError, "unsupported_parameter", chat(**{field: value}), field)


def check(binary, folder):
    with Worker(binary, ["--model", folder, "--dtype", "f32"]) as worker:
        client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % worker.port, api_key="none",
                               max_retries=0, timeout=120)
        reference = GgufReference(folder) if any(folder.glob("*.gguf")) else Reference(folder)
        check_models(client, folder.name)
        text, worst = check_chat(client, worker, folder.name, reference)
        check_completions(client, worker, folder.name, reference, text)
        check_refusals(client, folder.name)
        assert worker.stop() == 0, worker.stderr
    return "prompt as its template's" if reference.rows is None else "logprobs within %.1e" % worst


def has_chat_template(folder):
    config = folder / "tokenizer_config.json"
    return any(folder.glob("*.gguf")) or (folder / "chat_template.jinja").exists() or (
        config.exists() and "chat_template" in json.loads(config.read_text()))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", default=ROOT / "build" / "cpu" / "bin" / "llorch-cpu-candled")
    parser.add_argument("folders", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    goldens = sorted((ROOT / "tests" / "golden" / "data").iterdir())
    folders = args.folders or [ROOT / "models" / "tiny"] + [f for f in goldens if
                                                            has_chat_template(f)]
    for folder in folders:
        print("%-32s %s" % (folder.name, check(args.worker, folder)), flush=True)
    print("%d checkpoints: the client %s chats with all of them" % (len(folders),
                                                                    openai.__version__))


if __name__ == "__main__":
    main()
