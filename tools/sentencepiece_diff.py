#!/usr/bin/env python3
"""Compares what we make of a tokenizer.model alone with transformers and with SentencePiece.

  tools/sentencepiece_diff.py [--strings N] [--seed S] [--cli PATH] [KIND ...]
      trains a model of each kind (see KINDS) and encodes N random strings with both: with
      transformers' AutoTokenizer on the folder where the tokenizer_config.json names a class, else
      with SentencePiece itself. No difference is expected.
  tools/sentencepiece_diff.py --write
      makes tests/golden/sentencepiece anew; --check compares it with the references now.

Needs the packages of tools/requirements.txt.
"""
import json
import os
import random
import re
import sys
import tempfile

import sentencepiece
from transformers import AutoTokenizer
from transformers.utils import logging

import tokenizer_diff as diff

logging.set_verbosity_error()
GOLDENS = os.path.join(diff.ROOT, "tests/golden/sentencepiece")
LLAMA = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>",
         "eos_token": "</s>", "unk_token": "<unk>"}
GEMMA = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "bos_token": "<bos>",
         "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
BYTES = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
         "remove_extra_whitespaces": False}
# Where transformers' general backend, which never puts a mark before the text, is not at odds with
# SentencePiece. Its normalizer and its sums are the tokenizers library's.
BARE = {"add_dummy_prefix": False, "remove_extra_whitespaces": False}
LIKE_GEMMA = {**BYTES, "add_dummy_prefix": False, "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3,
              "pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>",
              "control_symbols": ["<start_of_turn>"],
              "user_defined_symbols": ["<mask>", "<unused0>", "\t", "▁▁", "▁▁▁", "\n\n"]}


def added(content, special=True, **flags):
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False,
            "single_word": False, "special": special, **flags}


# Options of the trainer, model_type of config.json, tokenizer_config.json or None.
KINDS = {
    "llama": (BYTES, "llama", LLAMA),
    "llama_legacy": (BYTES, "llama", {**LLAMA, "legacy": True, "add_eos_token": True}),
    "llama_no_prefix": (BYTES, "llama", {**LLAMA, "add_prefix_space": False}),
    "llama_fast": ({**BYTES, "split_digits": True, "allow_whitespace_only_pieces": True}, "llama",
                   {**LLAMA, "tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False}),
    "llama_symbols": ({**BYTES, "user_defined_symbols": ["<tool>", "the", "▁▁▁", "\n\n"],
                       "control_symbols": ["<|a|>", "<sep>"], "pad_id": 3}, "llama", LLAMA),
    "llama_added": (BYTES, "llama", {
        **LLAMA, "pad_token": "<pad>", "additional_special_tokens": ["<sn>"],
        "eos_token": {"__type": "AddedToken", **added("</s>", lstrip=True)},
        "added_tokens_decoder": {
            "0": added("<unk>"), "1": added("<s>"), "5000": added("<r>", rstrip=True),
            "5001": added("word", False, lstrip=True, single_word=True, normalized=True),
            "5002": added("<both>", lstrip=True, rstrip=True), "5003": added("  ", False)}}),
    "llama_no_bytes": ({"model_type": "bpe", "normalization_rule_name": "identity"}, "llama", LLAMA),
    "gemma": (LIKE_GEMMA, "gemma2", GEMMA),
    "gemma_no_config": (LIKE_GEMMA, "gemma3_text", None),
    "general": (BYTES, "llama", None),
    "general_symbols": ({**BYTES, "user_defined_symbols": ["<tool>", "<r>"]}, "mistral", None),
    "general_trimmed": ({**BYTES, "remove_extra_whitespaces": True}, "llama", None),
    "general_unescaped": ({**BYTES, "add_dummy_prefix": False}, "llama", None),
    "general_no_bytes": ({"model_type": "bpe", "normalization_rule_name": "identity"}, "llama", None),
    "unigram_bytes": ({"model_type": "unigram", "byte_fallback": True,
                       "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
                      "llama", None),
    "bare_unigram": ({**BARE, "model_type": "unigram", "normalization_rule_name": "identity"},
                     "llama", None),
    "bare_unigram_nfkc": ({**BARE, "model_type": "unigram"}, "mistral", None),
    "bare_bpe_nfkc": ({**BARE, "model_type": "bpe", "byte_fallback": True}, "llama", None),
}


def train(folder, options, size):
    """The path of the tokenizer.model."""
    prefix = os.path.join(folder, "tokenizer")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as text:
        text.write("\n".join(s for s in diff.SENTENCES * 4 for s in s.split("\n")))
        text.flush()
        sentencepiece.SentencePieceTrainer.train(
            input=text.name, model_prefix=prefix, vocab_size=size, hard_vocab_limit=False,
            minloglevel=2, num_threads=1, **options)
    os.remove(prefix + ".vocab")
    return prefix + ".model"


def make_folder(folder, kind, size=1000):
    options, model_type, config = KINDS[kind]
    os.makedirs(folder, exist_ok=True)
    path = train(folder, options, size)
    write_json(os.path.join(folder, "config.json"), {"model_type": model_type})
    if config:
        write_json(os.path.join(folder, "tokenizer_config.json"), config)
    return path


def write_json(path, data):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(data, out, ensure_ascii=False, indent=1)
        out.write("\n")


def by_transformers(kind):
    return KINDS[kind][2] is not None or kind.startswith(("gemma", "bare"))


def comparable(kind, text):
    """Known to be different: SentencePiece puts its mark before a user-defined symbol that begins
    the text; its unigram models do not know the text of control symbols as the library's do, and
    add up 32-bit floats, which in long runs decides ties in another way."""
    if text.startswith(("<tool>", "<r>")):
        return False
    return not (kind.startswith("unigram") and re.search(r"<s>|</s>|<unk>|<0x|(.)\1{7}", text))


def compare_with_sentencepiece(cli, kind, path, wanted, seed):
    processor = sentencepiece.SentencePieceProcessor(model_file=path)
    rng = random.Random(f"{seed} {kind}")
    texts = [t for t in (diff.random_text(rng) for _ in range(wanted)) if comparable(kind, t)]
    count = diff.Count()
    for text, got in zip(texts, diff.ours(cli, path, [t.encode() for t in texts])):
        want = processor.encode(text)
        count.strings += 1
        count.tokens += len(want)
        count.different += got[1] != want
        if got[1] != want and count.different <= 3:
            print(f"  {kind}: {text!r}\n    sentencepiece {want}\n    ours          {got[1]}")
    print(count.line(kind), flush=True)
    return count


def compare_kind(arguments, kind, folder):
    folder = os.path.join(folder, kind)
    path = make_folder(folder, kind)
    if not by_transformers(kind):
        return compare_with_sentencepiece(arguments.cli, kind, path, arguments.strings, arguments.seed)
    return diff.compare(arguments.cli, kind, backend(folder), path, arguments.strings, arguments.seed)


def backend(folder):
    return AutoTokenizer.from_pretrained(folder).backend_tokenizer


def golden_answers(kind, folder, texts):
    if by_transformers(kind):
        return diff.golden_answers(backend(folder), texts)
    processor = sentencepiece.SentencePieceProcessor(os.path.join(folder, "tokenizer.model"))
    return [{"text": t, "plain_ids": processor.encode(t)} for t in texts]


def write_goldens(kinds):
    for kind in kinds or KINDS:
        if kind.endswith("nfkc"):
            continue  # the map is a quarter of a megabyte; charsmap has goldens of its own
        folder = os.path.join(GOLDENS, kind)
        make_folder(folder, kind, size=700)
        texts = diff.golden_texts(kind)
        if not by_transformers(kind):
            texts = [t for t in texts if comparable(kind, t)]
        diff.write_cases(os.path.join(folder, "cases.json"), golden_answers(kind, folder, texts))


def check_goldens():
    def stale(kind):
        folder = os.path.join(GOLDENS, kind)
        return diff.is_stale(os.path.join(folder, "cases.json"),
                             lambda texts: golden_answers(kind, folder, texts))
    return sum(map(stale, sorted(os.listdir(GOLDENS))))


if __name__ == "__main__":
    sys.exit(diff.run(KINDS, compare_kind, write_goldens, check_goldens, strings=5000))
