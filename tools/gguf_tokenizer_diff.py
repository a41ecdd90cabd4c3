#!/usr/bin/env python3
"""Compares what we make of a GGUF file's vocabulary with the tokenizer.json it was converted from.

  tools/gguf_tokenizer_diff.py [--strings N] [--seed S] [--cli PATH] [KIND ...]
      trains a tokenizer of each kind (see KINDS), writes down its vocabulary as converters to GGUF
      do, and encodes N random strings with both. No difference is expected.
  tools/gguf_tokenizer_diff.py --write
      makes tests/golden/gguf_tokenizers anew; --check compares it with the library now.

Needs the packages of tools/requirements.txt.
"""
import json
import os
import sys
import tempfile

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers.convert_slow_tokenizer import generate_merges

import sentencepiece_diff
import tokenizer_diff as diff
from tokenizer_kinds import GPT4, GPT4O, KINDS as JSON_KINDS, TEKKEN, byte_level, edited, with_added

GOLDENS = os.path.join(diff.ROOT, "tests/golden/gguf_tokenizers")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
ADDED = [AddedToken("<|a|>", special=True), AddedToken("<tool>", special=False, normalized=False),
         AddedToken("  ", special=False, normalized=False)]


def from_byte_level(tokenizer, pre, **more):
    """As convert_hf_to_gguf's get_vocab_base(), with two fillers for an embedding that is larger."""
    data = json.loads(tokenizer.to_str())
    added = {t["id"]: t for t in data["added_tokens"]}
    text = {i: t for t, i in tokenizer.get_vocab().items()}
    size = max(text) + 3
    types = [UNUSED if i not in text else NORMAL if i not in added else
             CONTROL if added[i]["special"] else USER_DEFINED for i in range(size)]
    merges = [" ".join(m) for m in data["model"]["merges"]]
    return {"model": "gpt2", "pre": pre, "architecture": "llama", "scores": [], "types": types,
            "tokens": [text.get(i, f"[PAD{i}]") for i in range(size)], "merges": merges, **more}


def byte_level_kind(make, pre, **more):
    def made():
        tokenizer = with_added(make(), ADDED)
        return tokenizer, from_byte_level(tokenizer, pre, **more)
    return made


def trained(options):
    with tempfile.TemporaryDirectory() as folder:
        path = sentencepiece_diff.train(folder, options, size=800)
        return sentencepiece.SentencePieceProcessor(model_file=path)


def from_pieces(processor, user_defined, **more):
    """As convert_hf_to_gguf's _create_vocab_sentencepiece(), where `user_defined` are the tokens
    of added_tokens_decoder that are not special."""
    ids = range(len(processor))
    text = [processor.id_to_piece(i) for i in ids]
    types = [UNKNOWN if processor.is_unknown(i) else CONTROL if processor.is_control(i) else
             BYTE if processor.is_byte(i) else NORMAL for i in ids]
    scores = [processor.get_score(i) for i in ids]
    for i in ids:
        if text[i] in user_defined:
            text[i], types[i], scores[i] = text[i].replace("▁", " "), USER_DEFINED, -1000.0
    return {"model": "llama", "pre": "default", "architecture": "llama", "scores": scores + [-1e4],
            "types": types + [UNUSED], "tokens": text + [f"[PAD{len(text)}]"], "merges": [],
            "unk": processor.unk_id(), "bos": processor.bos_id(), "eos": processor.eos_id(), **more}


def marked(processor, prefix, user_defined=()):
    """The tokenizer.json of transformers' conversions until version 4."""
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(len(processor))]
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, generate_merges(vocab, pieces), unk_token="<unk>",
                                     fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                           decoders.Fuse(), *strip])
    special = [i for i in range(len(pieces)) if processor.is_control(i) or processor.is_unknown(i)]
    tokenizer.add_special_tokens([AddedToken(pieces[i][0], normalized=False, special=True)
                                  for i in special])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in user_defined])
    bos = pieces[processor.bos_id()][0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, processor.bos_id())])
    return tokenizer


def llama():
    processor = trained(sentencepiece_diff.BYTES)
    return marked(processor, True), from_pieces(processor, ())


def gemma():
    processor = trained(sentencepiece_diff.LIKE_GEMMA)
    user_defined = sentencepiece_diff.LIKE_GEMMA["user_defined_symbols"]
    return (marked(processor, False, user_defined),
            from_pieces(processor, user_defined, add_space_prefix=False))


def llama3():
    tokenizer = with_added(JSON_KINDS["llama3"](), ADDED)
    return tokenizer, from_byte_level(tokenizer, "llama-bpe",
                                      bos=tokenizer.token_to_id("<|begin_of_text|>"))


def tekken():
    tokenizer = with_added(byte_level(TEKKEN, ignore_merges=True, bos="<s>", special=("<s>", "</s>")),
                           ADDED)
    return tokenizer, from_byte_level(tokenizer, "tekken", bos=tokenizer.token_to_id("<s>"),
                                      add_bos=True)


def smollm():
    def with_regex(data):
        data["pre_tokenizer"]["pretokenizers"][-1]["use_regex"] = True
    return edited(byte_level(steps=[pre_tokenizers.Digits(individual_digits=True)]), with_regex)


KINDS = {
    "llama": llama, "gemma": gemma, "llama-bpe": llama3, "tekken": tekken,
    "gpt-2": byte_level_kind(JSON_KINDS["gpt2"], "gpt-2"),
    "phi-2": byte_level_kind(JSON_KINDS["gpt2"], "phi-2", add_bos=False),
    "qwen2": byte_level_kind(JSON_KINDS["qwen2"], "qwen2"),
    "gpt-4o": byte_level_kind(JSON_KINDS["gpt4o"], "gpt-4o"),
    "llama4": byte_level_kind(lambda: byte_level(GPT4O, ignore_merges=True), "llama4"),
    "smaug-bpe": byte_level_kind(lambda: byte_level(GPT4, ignore_merges=True), "smaug-bpe"),
    "dbrx": byte_level_kind(lambda: byte_level(GPT4), "dbrx"),
    "smollm": byte_level_kind(smollm, "smollm"),
}


def write_vocabulary(path, vocabulary):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(vocabulary, out, ensure_ascii=False, separators=(",", ":"))
        out.write("\n")


def golden_files(kind):
    return [os.path.join(GOLDENS, kind + end) for end in (".tokenizer.json", ".gguf.json", ".cases.json")]


def write_goldens(kinds):
    os.makedirs(GOLDENS, exist_ok=True)
    for kind in kinds or KINDS:
        tokenizer, vocabulary = KINDS[kind]()
        tokenizer_file, vocabulary_file, cases_file = golden_files(kind)
        write_vocabulary(tokenizer_file, json.loads(tokenizer.to_str()))
        write_vocabulary(vocabulary_file, vocabulary)
        diff.write_cases(cases_file, diff.golden_answers(tokenizer, diff.golden_texts(kind)))


def check_goldens():
    return sum(diff.is_stale(cases, lambda texts: diff.golden_answers(Tokenizer.from_file(path), texts))
               for path, _, cases in map(golden_files, KINDS))


def compare_kind(arguments, kind, folder):
    tokenizer, vocabulary = KINDS[kind]()
    path = os.path.join(folder, kind + ".gguf.json")
    write_vocabulary(path, vocabulary)
    return diff.compare(arguments.cli, kind, tokenizer, path, arguments.strings, arguments.seed)


if __name__ == "__main__":
    sys.exit(diff.run(KINDS, compare_kind, write_goldens, check_goldens, strings=5000))
