#!/usr/bin/env python3
"""Compares our chat templates with jinja2 as transformers sets it up; no difference is expected.

  tools/template_diff.py [--cases N] [--seed S] [--cli PATH] [--show N] [PATH ...]
      renders the templates of tests/golden/templates (or the .jinja files of PATH) on conversations
      of many kinds, and N random templates and expressions, with both. What differs is printed; a
      difference of error texts is none.
  tools/template_diff.py --write
      makes tests/golden/templates/cases.json anew: those renderings, for the tests in C++.

Needs the packages of tools/requirements.txt.
"""
import argparse
import functools
import glob
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import template_cases

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GOLDENS = os.path.join(ROOT, "tests/golden/templates")
CLI = os.path.join(ROOT, "build/cpu/src/template/template_cli")


@functools.lru_cache(4)
def compiled(source):
    try:
        return chat_template_utils._cached_compile_jinja_template(source)
    except Exception as e:  # jinja2's, and Python's on what jinja2 makes of it
        return repr(e)


def reference(source, variables):
    """(status, text) as template_cli answers: 0 and the text, 1 failed, 2 does not parse."""
    template = compiled(source)
    if isinstance(template, str):
        return 2, template
    try:
        text = template.render(**json.loads(variables))
        text.encode()
        return 0, text
    except Exception as e:
        return 1, repr(e)


class Cli:
    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def render(self, *texts):
        for text in (text.encode() for text in texts):
            self.process.stdin.write(struct.pack("<I", len(text)) + text)
        self.process.stdin.flush()
        status, length = struct.unpack("<II", self.process.stdout.read(8))
        return status, self.process.stdout.read(length).decode("utf-8", "surrogatepass")


def same(ours, theirs):
    if theirs[0] != 0 or ours[0] != 0:
        return ours[0] == theirs[0]
    return ours[1] == theirs[1]


# What we refuse knowingly: numbers beyond 64 bits and what would need more than a render may take.
REFUSED = ("needs more than 64 bits", "is not supported", "too much text", "runs for too long",
           "complex numbers", "nested too deeply")


def compare(cli, source, variables, show):
    theirs = reference(source, variables)
    ours = cli.render(source, variables)
    if same(ours, theirs):
        return True
    if ours[0] != 0 and any(text in ours[1] for text in REFUSED):
        return None
    if theirs[0] == 0 and " at 0x" in theirs[1].lower():  # where an object lies in memory
        return None
    if show > 0:
        print("-" * 80 + f"\n{source}\n  variables: {variables}\n  theirs: {theirs}\n  ours:   {ours}")
    return False


def templates(paths):
    found = []
    for path in paths or [GOLDENS]:
        found += sorted(glob.glob(path + "/**/*.jinja", recursive=True)) if os.path.isdir(path) else [path]
    return found


def report(name, results):
    different = results.count(False)
    print(f"{name}: {len(results)} cases, {different} differ, {results.count(None)} refused knowingly")
    return different


def apply_cases(path):
    """Whole models: which template is taken, and what is passed to it. Yields (ours, theirs)."""
    show = ("{{ bos_token }}|{{ eos_token }}|{{ unk_token is defined }}|{{ sep_token is defined }}|{{ image_token }}|{{ x_token }}|"
            "{{ messages | tojson }}|{{ tools | tojson }}|{{ documents | tojson }}|{{ add_generation_prompt }}|{{ k }}")
    tokens = {"bos_token": {"__type": "AddedToken", "content": "<b>", "lstrip": False}, "eos_token": "<e>", "unk_token": None,
              "pad_token": "<p>", "image_token": "<i>"}
    extra = {"extra_special_tokens": {"x_token": "<x>"}, "additional_special_tokens": ["<y>"]}
    named = [{"name": "default", "template": "D" + show}, {"name": "tool_use", "template": "T" + show}]
    models = [  # tokenizer_config.json, chat_template.jinja, additional_chat_templates
        ({**tokens, "chat_template": "C" + show}, None, {}), ({**tokens, **extra, "chat_template": named}, None, {}),
        ({**tokens, "chat_template": named}, "F" + show, {}), ({"chat_template": "C"}, "F" + show, {"tool_use": "A" + show}),
        ({"chat_template": "C" + show}, None, {"rag": "R"}), ({"chat_template": named[1:]}, None, {}), ({}, None, {}),
        ({"chat_template": named[:1]}, None, {}), ({"eos_token": "<e>"}, "F{% if messages[0].thinking %}{{ messages[0].thinking }}{% endif %}", {}),
    ]
    chats = template_cases.CHATS + [[{"role": "user", "content": "x", "thinking": None, "reasoning": "r", "list": [None]}],
                                    [{"content": "c", "reasoning_content": "r", "thinking": "t"}], []]
    inputs = [(chat, *more) for chat in chats for more in (
        (None, None, {}), (template_cases.TOOLS, template_cases.DOCUMENTS, {"k": 1.0}), ([], [], {"bos_token": "B"}))]
    for config, file, additional in models:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(os.path.join(ROOT, "models/tiny/tokenizer.json"), folder)
            names = {"tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **config}),
                     "chat_template.jinja": file, **{f"additional_chat_templates/{name}.jinja": t for name, t in additional.items()}}
            os.mkdir(os.path.join(folder, "additional_chat_templates"))
            for name, text in names.items():
                if text is not None:
                    with open(os.path.join(folder, name), "w") as f:
                        f.write(text)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            cli = Cli(path, "--chat", folder)
            for chat, tools, documents, kwargs in inputs:
                try:
                    theirs = 0, tokenizer.apply_chat_template(chat, tools=tools, documents=documents, tokenize=False,
                                                              add_generation_prompt=True, **kwargs)
                except Exception as e:
                    theirs = 1, repr(e)
                ours = cli.render(*(json.dumps(part) for part in (chat, tools, documents, kwargs)))
                yield (min(ours[0], 1), ours[1]), theirs


def write():
    """The answers that golden_test.cc compares with; conversations are chosen to differ most."""
    chats = list(template_cases.conversations())[::39]
    cases = []
    for path in templates([]):
        with open(path, newline="") as f:
            source = f.read()
        answers = [reference(source, chat) for chat in chats]
        cases.append({"template": os.path.basename(path), "answers": [a[1] if a[0] == 0 else None for a in answers]})
    generator = template_cases.Generator(random.Random(20))
    snippets = template_cases.FIXED + [generator.case() for _ in range(250)]
    cli = Cli(CLI)
    kept = []
    for source, variables in snippets:
        theirs = reference(source, variables)
        # What prints an object's place in memory, or is refused knowingly, has no answer to compare.
        if compare(cli, source, variables, 0) is not None:
            kept.append([source, variables, theirs[0], theirs[1] if theirs[0] == 0 else ""])
    with open(os.path.join(GOLDENS, "cases.json"), "w") as f:
        f.write("{\n\"chats\": [\n" + ",\n".join(json.dumps(c) for c in chats))
        f.write("\n],\n\"templates\": [\n" + ",\n".join(json.dumps(c) for c in cases))
        f.write("\n],\n\"snippets\": [\n" + ",\n".join(json.dumps(s) for s in kept) + "\n]\n}\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cli", default=CLI)
    parser.add_argument("--show", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("paths", nargs="*")
    args = parser.parse_args()
    if args.write:
        return write()
    cli = Cli(args.cli)
    show, different = args.show, 0

    def run(name, cases):
        nonlocal show, different
        results = []
        for source, variables in cases:
            results.append(compare(cli, source, variables, show))
            show -= results[-1] is False
        different += report(name, results)

    files = templates(args.paths)
    for path in files:
        with open(path, newline="") as f:
            source = f.read()
        run(os.path.relpath(path), [(source, v) for v in template_cases.conversations()])
    if args.cases:
        generator = template_cases.Generator(random.Random(args.seed))
        run("random", [generator.case() for _ in range(args.cases)])
    if not args.paths:
        run("fixed", template_cases.FIXED)
        pairs = list(apply_cases(args.cli))
        for ours, theirs in [pair for pair in pairs if not same(*pair)][:show]:
            print("-" * 80 + f"\n  theirs: {theirs}\n  ours:   {ours}")
        different += report("apply_chat_template", [same(*pair) for pair in pairs])
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
