#!/usr/bin/env python3
"""Makes tokenizers of published size from vocabularies that PyPI packages carry.

  tools/real_tokenizers.py --packages DIR --out DIR [--text FILE]
      DIR of packages: pip install --no-deps --target DIR mistral-common dashscope llama-models
      Writes OUT/NAME/tokenizer.json for llama3, qwen2, gpt4o (Llama 4's vocabulary, 200k), tekken,
      llama2 (Mistral's first, also as tokenizer.model) and gemma (262k: the former, widened by
      words of --text).

The vocabularies belong to their publishers: nothing that this writes is to be committed.
"""
import argparse
import base64
import json
import os
import re
import shutil

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors)
from transformers.convert_slow_tokenizer import bytes_to_unicode, generate_merges

GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
GPT4O = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
BYTES = bytes_to_unicode()


def tiktoken_ranks(path):
    with open(path, "rb") as lines:
        return [base64.b64decode(line.split()[0]) for line in lines if line.strip()]


def byte_level(ranks, pattern, ignore_merges, specials, bos=None, normalizer=None, first_id=0):
    """As transformers' converters do it: all the ways to split a token, in the order of ranks."""
    rank = {token: i for i, token in enumerate(ranks)}
    text = ["".join(BYTES[b] for b in token) for token in ranks]
    merges = []
    for token in ranks:
        local = [(rank[token[:i]], rank[token[i:]]) for i in range(1, len(token))
                 if token[:i] in rank and token[i:] in rank]
        merges += [(text[a], text[b]) for a, b in sorted(local)]
    vocab = {t: i + first_id for i, t in enumerate(text)}
    vocab.update({s: i for i, s in enumerate(specials[:first_id])})
    tokenizer = Tokenizer(models.BPE(vocab, merges, fuse_unk=False, ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in specials])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    return tokenizer


def reserved(names, count):
    return names + [f"<|reserved_special_token_{i}|>" for i in range(count - len(names))]


def tekken(path):
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    count = data["config"]["default_num_special_tokens"]
    inner = data["config"]["default_vocab_size"] - count
    ranks = [base64.b64decode(t["token_bytes"]) for t in data["vocab"][:inner]]
    specials = [t["token_str"] for t in data.get("special_tokens") or []] or ["<unk>", "<s>", "</s>"]
    specials += [f"<SPECIAL_{i}>" for i in range(len(specials), count)]
    return byte_level(ranks, data["config"]["pattern"], True, specials, bos="<s>", first_id=count)


def gemma(llama2, text, size=262144):
    """A 262k SentencePiece-like vocabulary: Mistral's pieces, then words of `text` and compounds of them."""
    model = json.loads(llama2.to_str())["model"]
    vocab = dict(model["vocab"])
    merges = [tuple(m) for m in model["merges"]]
    words = re.findall(r" ?[^\W\d_]+|\d|[^\w\s]+", text.replace("\n", " "))
    counted = {}
    for word in words:
        counted[word.replace(" ", "▁")] = counted.get(word.replace(" ", "▁"), 0) + 1
    ordered = sorted(counted, key=counted.get, reverse=True)
    made = [w[:n] for w in ordered for n in range(2, min(len(w), 24) + 1)]
    made += [f"{a}{b}" for a in ordered[:1200] for b in ordered[:1200] if not b.startswith("▁")]
    for piece in made:
        if len(vocab) >= size:
            break
        if piece in vocab:
            continue
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))
                if piece[:i] in vocab and piece[i:] in vocab]
        if cuts:
            vocab[piece] = len(vocab)
            merges += sorted(cuts, key=lambda c: (vocab[c[0]], vocab[c[1]]))
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                           decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def llama2(pieces):
    """What conversions of a tokenizer.model gave until transformers 4.40."""
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, generate_merges(vocab, pieces), unk_token="<unk>",
                                     fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"),
                                                 normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                           decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True)
                                  for t in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--packages", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--text", required=True)
    arguments = parser.parse_args()

    def package(*path):
        return os.path.join(arguments.packages, *path)

    def save(name, tokenizer):
        os.makedirs(os.path.join(arguments.out, name), exist_ok=True)
        tokenizer.save(os.path.join(arguments.out, name, "tokenizer.json"))
        print(name, tokenizer.get_vocab_size(), flush=True)

    begin = "<|begin_of_text|>"
    save("llama3", byte_level(tiktoken_ranks(package("llama_models/llama3/tokenizer.model")), GPT4,
                              True, reserved([begin, "<|end_of_text|>", "<|eot_id|>"], 256), begin))
    save("qwen2", byte_level(tiktoken_ranks(package("dashscope/resources/qwen.tiktoken")),
                             GPT4.replace(r"\p{N}{1,3}", r"\p{N}"), False,
                             ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                             normalizer=normalizers.NFC()))
    save("gpt4o", byte_level(tiktoken_ranks(package("llama_models/llama4/tokenizer.model")), GPT4O,
                             True, reserved([begin, "<|end_of_text|>"], 1000), begin))
    save("tekken", tekken(package("mistral_common/data/tekken_240911.json")))
    from sentencepiece import SentencePieceProcessor
    model = package("mistral_common/data/tokenizer.model.v1")
    pieces = SentencePieceProcessor(model_file=model)
    made = llama2([(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))])
    save("llama2", made)
    shutil.copy(model, os.path.join(arguments.out, "llama2", "tokenizer.model"))
    with open(arguments.text, encoding="utf-8") as text:
        save("gemma", gemma(made, text.read()))


if __name__ == "__main__":
    main()
