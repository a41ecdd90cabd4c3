#!/usr/bin/env python3
"""Compares our tokenizer with the `tokenizers` library on random text; no difference is expected.

  tools/tokenizer_diff.py [--strings N] [--seed S] [--cli PATH] [KIND ...]
      trains a small tokenizer of each kind (see KINDS), encodes N random strings with both, decodes
      what came out, and prints a line for each kind. KIND may also be a tokenizer.json.
  tools/tokenizer_diff.py --write
      makes tests/golden/tokenizers anew: a tokenizer of each kind and what the library does with
      some texts.
  tools/tokenizer_diff.py --check
      compares those answers with the library's now.

Needs the packages of tools/requirements.txt. Strings hold code points of Unicode 14 only: Debian's
PCRE2 and utf8proc know no later ones.
"""
import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GOLDENS = os.path.join(ROOT, "tests/golden/tokenizers")
TINY = os.path.join(ROOT, "models/tiny/tokenizer.json")

GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = GPT4.replace(r"\p{N}{1,3}", r"\p{N}")
GPT4O = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
HAN = "|".join([
    r"[\p{Han}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])

SENTENCES = [
    "Once upon a time there was a small house by the river, and in it lived a cat named Tom.",
    "The quick brown fox jumps over the lazy dog; it doesn't care, and we'll see why they've gone.",
    "I'm sure you'd say it's 42, or 3.14159, or 1,000,000 — but who's counting? WE'RE NOT.",
    "Der Fluß fließt über große Steine; Äpfel, Öl und Übermut tun selten gut.",
    "L'été dernier, où étais-tu ? Ça m'a coûté très cher, à Noël, près du cœur de la forêt.",
    "El niño comió una manzana roja. ¿Cuántos años tienes? ¡Qué día tan bonito!",
    "Съешь же ещё этих мягких французских булок да выпей чаю. Привет, мир!",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.",
    "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。今天天气很好，我们去公园散步吧。",
    "いろはにほへと ちりぬるを。東京タワーへ行きました。カタカナもあります。",
    "안녕하세요, 만나서 반갑습니다. 오늘은 날씨가 좋네요.",
    "السلام عليكم، كيف حالك اليوم؟ الكتاب على الطاولة.",
    "שלום עולם, מה שלומך היום? הספר על השולחן.",
    "नमस्ते दुनिया, आप कैसे हैं? किताब मेज़ पर है।",
    "สวัสดีชาวโลก วันนี้อากาศดีมาก", "Xin chào thế giới, hôm nay trời đẹp quá.",
    "Zażółć gęślą jaźń. Příliš žluťoučký kůň úpěl ďábelské ódy. İstanbul'da ılık bir gün.",
    "def add(a, b):\n    return a + b\n\nfor i in range(10):\n\tprint(f'{i}: {add(i, 1)}')\n",
    "#include <vector>\nint main() { std::vector<int> v{1, 2, 3}; return v[0] != 1; }\r\n",
    "SELECT name, COUNT(*) FROM users WHERE id >= 10 AND name LIKE '%x_%' GROUP BY name;",
    "{\"key\": [1, 2.5e-3, null, true], \"nested\": {\"a\": \"b\\n\"}}  // comment",
    "🙂 👍🏽 👩‍👩‍👧 🇩🇪 ❤️ ✅ 🎉🎉🎉 → ← ≠ ∑ √2 ½ ² № ™", "https://example.org/a/b?c=d&e=%20#frag me@mail.net",
]


# ---------------------------------------------------------------- tokenizers to compare with

def train(tokenizer, size, special=(), alphabet=(), limit=1000):
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), show_progress=False,
                                  initial_alphabet=list(alphabet), limit_alphabet=limit)
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    return tokenizer


def edited(tokenizer, change):
    """The tokenizer after `change` has edited its JSON."""
    data = json.loads(tokenizer.to_str())
    change(data)
    return Tokenizer.from_str(json.dumps(data))


def byte_level(pattern=None, normalizer=None, ignore_merges=False, prefix_space=False, bos=None,
               steps=None, size=600, special=("<|endoftext|>",)):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    last = pre_tokenizers.ByteLevel(prefix_space, use_regex=pattern is None and steps is None)
    if pattern:
        steps = [pre_tokenizers.Split(Regex(pattern), "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps + [last]) if steps else last
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, size, special, pre_tokenizers.ByteLevel.alphabet())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if bos:
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{bos} $A", pair=f"{bos} $A {bos} $B",
                special_tokens=[(bos, tokenizer.token_to_id(bos))])])
    if ignore_merges:
        tokenizer = edited(tokenizer, lambda d: d["model"].update(ignore_merges=True))
    return tokenizer


def sentencepiece(normalizer=None, pre_tokenizer=None, decoder=None, fuse_unk=True, fallback=True,
                  size=800):
    specials = ["<unk>", "<s>", "</s>"]
    fallbacks = [f"<0x{b:02X}>" for b in range(256)] if fallback else []
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse_unk, byte_fallback=fallback))
    if normalizer:
        tokenizer.normalizer = normalizer
    # Words of the training text are cut at the mark, or else merges would span them.
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.Metaspace(prepend_scheme="never")
    train(tokenizer, size, specials + fallbacks, limit=200)
    tokenizer.decoder = decoder or decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])

    def finish(data):  # byte tokens are part of the vocabulary, not added tokens
        data["added_tokens"] = data["added_tokens"][:3]
        if not pre_tokenizer:
            data["pre_tokenizer"] = None
    return edited(tokenizer, finish)


def metaspace(scheme, split):
    mark = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    tokenizer = sentencepiece(pre_tokenizer=mark, decoder=decoders.Sequence([
        decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme)]))
    return edited(tokenizer, lambda d: d["pre_tokenizer"].update(split=split))


def old_metaspace():
    def old(data):
        for key in ("pre_tokenizer", "decoder"):
            data[key] = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    return edited(metaspace("always", True), old)


def with_added(tokenizer, tokens):
    tokenizer.add_tokens([t for t in tokens if not t.special])
    tokenizer.add_special_tokens([t for t in tokens if t.special])
    return tokenizer


ADDED = [
    AddedToken("<tool>", special=True, lstrip=True), AddedToken("<r>", special=True, rstrip=True),
    AddedToken("<both>", special=True, lstrip=True, rstrip=True), AddedToken("<|a|>", special=True),
    AddedToken("<|a|>b", special=True), AddedToken("word", single_word=True, normalized=False),
    AddedToken("Étude", normalized=True), AddedToken("  ", normalized=False),
    AddedToken("\n\n", normalized=False), AddedToken("the ", normalized=True),
    AddedToken("ab", normalized=True, single_word=True, lstrip=True),
    AddedToken("x y", normalized=True, rstrip=True), AddedToken("<sn>", special=True, normalized=True),
]


def words(steps, normalizer=None, decoder=None, unk="<unk>"):
    tokenizer = Tokenizer(models.BPE(unk_token=unk, fuse_unk=False) if unk else models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = steps
    train(tokenizer, 500, [unk] if unk else [], limit=120)
    if decoder:
        tokenizer.decoder = decoder
    return tokenizer


def split(pattern, behavior, invert=False):
    regex = pattern if isinstance(pattern, str) else Regex(pattern[0])
    return words(pre_tokenizers.Split(regex, behavior, invert), decoder=decoders.Fuse())


def split_strings():
    return words(pre_tokenizers.Sequence([
        pre_tokenizers.Split(" ", "merged_with_next"), pre_tokenizers.Split(".", "merged_with_previous"),
        pre_tokenizers.Split("a", "contiguous"), pre_tokenizers.Split("e", "removed"),
        pre_tokenizers.Split("", "isolated")]), unk=None)


KINDS = {
    "gpt2": lambda: byte_level(),
    "gpt2_prefix_space": lambda: byte_level(prefix_space=True),
    "llama3": lambda: byte_level(GPT4, ignore_merges=True, bos="<|begin_of_text|>",
                                 special=("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")),
    "qwen2": lambda: byte_level(QWEN2, normalizers.NFC(),
                                special=("<|endoftext|>", "<|im_start|>", "<|im_end|>")),
    "gpt4o": lambda: byte_level(GPT4O),
    "han": lambda: byte_level(HAN),
    "deepseek": lambda: byte_level(steps=[
        pre_tokenizers.Split(Regex(r"[\r\n]"), "isolated"),
        pre_tokenizers.Split(Regex(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ]+"),
                             "isolated"),
        pre_tokenizers.Split(Regex(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), "isolated"),
        pre_tokenizers.Split(Regex(r"\s+$"), "isolated"),
        pre_tokenizers.Split(Regex(r"[一-龥ࠀ-一가-퟿]+"), "isolated"),
        pre_tokenizers.Digits(individual_digits=True)]),
    "starcoder": lambda: byte_level(steps=[pre_tokenizers.Digits(individual_digits=True),
                                           pre_tokenizers.ByteLevel(False, use_regex=True)]),
    "added_byte_level": lambda: with_added(byte_level(GPT4, normalizers.NFC()), ADDED),
    "llama2": lambda: sentencepiece(normalizers.Sequence([
        normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])),
    "llama2_no_fallback": lambda: sentencepiece(normalizers.Sequence([
        normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), fuse_unk=False, fallback=False),
    "gemma": lambda: sentencepiece(
        normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])),
    "metaspace_first": lambda: metaspace("first", False),
    "metaspace_first_split": lambda: with_added(metaspace("first", True), ADDED),
    "metaspace_always": lambda: metaspace("always", True),
    "metaspace_never": lambda: metaspace("never", True),
    "metaspace_old": old_metaspace,
    "added_sentencepiece": lambda: with_added(sentencepiece(normalizers.Sequence([
        normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])), ADDED),
    "words_lower": lambda: words(
        pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(False)]),
        normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])),
    "words_marks": lambda: words(
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]),
        normalizers.Sequence([normalizers.NFD(), normalizers.Strip(left=True, right=False),
                              normalizers.Replace(Regex(r"\s{2,}"), " ")])),
    "words_nfkd": lambda: words(
        pre_tokenizers.Punctuation("merged_with_previous"), normalizers.NFKD(), decoders.Fuse()),
    "strip_then_first": lambda: words(
        pre_tokenizers.Metaspace(prepend_scheme="first"),
        normalizers.Sequence([normalizers.Strip(left=True, right=True), normalizers.Prepend("x "),
                              normalizers.Replace(Regex("x  ?"), "")]), decoders.Metaspace()),
    "split_removed": lambda: split([r"[\s\p{P}]"], "removed"),
    "split_inverted": lambda: split([r"\w+|[[:punct:]]+"], "removed", True),
    "split_previous": lambda: split([r"\s|\b(?=\d)"], "merged_with_previous"),
    "split_next": lambda: split([r"[\s-]|(?m:.)\W"], "merged_with_next"),
    "split_contiguous": lambda: split([r"\p{Lu}|\h|[^\w\s]"], "contiguous"),
    "split_contiguous_inverted": lambda: split([r"\d{1,2}+|\S{3,4}?|^\s*$"], "contiguous", True),
    "split_strings": split_strings,
    "tiny": lambda: Tokenizer.from_file(TINY),
}
GOLDEN_KINDS = [k for k in KINDS if k not in ("tiny", "gpt2_prefix_space", "starcoder")]


# ---------------------------------------------------------------- texts

def assigned(*ranges):
    out = []
    for first, last in ranges:
        out += [chr(c) for c in range(first, last + 1)
                if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    return out


assert unicodedata.unidata_version <= "14.0.0", "the strings would hold later code points"
SCRIPTS = [assigned(r) for r in [
    (0x20, 0x7E), (0x61, 0x7A), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x2FF), (0x370, 0x3FF),
    (0x400, 0x52F), (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF), (0x700, 0x8FF), (0x900, 0x97F),
    (0x980, 0xDFF), (0xE00, 0xEFF), (0xF00, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF),
    (0x1200, 0x17FF), (0x1800, 0x1CFF), (0x1D00, 0x1DFF), (0x1E00, 0x1FFF), (0x2000, 0x206F),
    (0x2070, 0x218F), (0x2190, 0x2BFF), (0x2C00, 0x2FFF), (0x3000, 0x30FF), (0x3100, 0x33FF),
    (0x3400, 0x3500), (0x4E00, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7A3), (0xF900, 0xFDFF),
    (0xFE00, 0xFFFD), (0x10000, 0x10FFF), (0x11000, 0x11FFF), (0x12000, 0x16FFF),
    (0x1D000, 0x1D7FF), (0x1E000, 0x1EFFF), (0x1F000, 0x1FAFF), (0x20000, 0x2FFFF),
    (0xE0000, 0xE01FF)]]
EVERYTHING = assigned((1, 0x10FFFF))
MARKS = [c for c in EVERYTHING if unicodedata.category(c)[0] == "M"]
NUMBERS = [c for c in EVERYTHING if unicodedata.category(c)[0] == "N"]
PUNCTUATION = [c for c in EVERYTHING if unicodedata.category(c)[0] in "PS"]
SPACES = list(" \t\n\r\v\f\x1c\x85\xa0") + [c for c in EVERYTHING if unicodedata.category(c)[0] == "Z"]
CONTROLS = [chr(c) for c in range(0x20)] + [chr(c) for c in range(0x7F, 0xA0)] + list(
    "\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u2060\ufeff\ufff9\ufffd")
EMOJI = ["🙂", "👍🏽", "👩‍👩‍👧", "🇩🇪", "❤️", "✅", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "1️⃣", "🧑🏿‍🚀", "☺︎", "\U0001F9CC", "\u200d", "\ufe0f"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|begin_of_text|>", "<|eot_id|>", "<|begin|>", "<|end|>",
           "<s>", "</s>", "<unk>", "<0x41>", "<0xE4>", "<0xff>", "▁", "Ġ", "Ċ", "<|endoftext", "|>", "<s",
           "[UNK]", "<tool>", "<r>", "<both>", "<|a|>", "<|a|>b", "<|a", "word", "Étude", "E\u0301tude",
           "the ", "ab", "x y", "<sn>", "\n\n", "  "]
CONTRACTIONS = ["'s", "'S", "'ſ", "'t", "'RE", "'ve", "'M", "'ll", "'LL", "'d", "’s", "''", "' s", "K's", "ſ"]
FRAGMENTS = [w for s in SENTENCES for w in s.split(" ") if w] + SENTENCES


def random_text(rng):
    out = []
    script = rng.choice(SCRIPTS)
    for _ in range(rng.choice((1, 2, 3, 5, 8, 13))):
        kind = rng.randrange(15)
        if kind <= 2:
            out.append(rng.choice(FRAGMENTS))
        elif kind == 3:
            out += rng.choices(SPACES[:4] if rng.random() < .6 else SPACES, k=rng.randrange(1, 6))
        elif kind == 4:
            out += rng.choices(script, k=rng.randrange(1, 9))
        elif kind == 5:
            script = rng.choice(SCRIPTS)
            out += rng.choices(script, k=rng.randrange(1, 5))
        elif kind == 6:
            out += rng.choices(EVERYTHING, k=rng.randrange(1, 4))
        elif kind == 7:
            out += rng.choices(MARKS, k=rng.randrange(1, 4))
        elif kind == 8:
            out.append(rng.choice(EMOJI))
        elif kind == 9:
            out.append(rng.choice(SPECIAL))
        elif kind == 10:
            out.append(rng.choice(CONTRACTIONS))
        elif kind == 11:
            out += rng.choices(NUMBERS[:10] if rng.random() < .6 else NUMBERS, k=rng.randrange(1, 6))
        elif kind == 12:
            out += rng.choices(PUNCTUATION[:32] if rng.random() < .6 else PUNCTUATION,
                               k=rng.randrange(1, 5))
        elif kind == 13:
            out.append(rng.choice(CONTROLS) if rng.random() < .5
                       else rng.choice(SCRIPTS[0]) * rng.randrange(2, 40))
        else:
            out.append(" ")
    return "".join(out)


def damaged(rng, text):
    """The text's bytes with some of them cut out, doubled or changed."""
    data = bytearray(text.encode())
    for _ in range(rng.randrange(1, 4)):
        if not data:
            break
        at = rng.randrange(len(data))
        change = rng.randrange(3)
        if change == 0:
            del data[at]
        elif change == 1:
            data[at] = rng.randrange(256)
        else:
            data.insert(at, rng.choice((0x80, 0xBF, 0xC0, 0xC3, 0xE0, 0xED, 0xF0, 0xF4, 0xF5, 0xFF)))
    return bytes(data)


# ---------------------------------------------------------------- both sides' answers

class Answers:
    """Reads what tokenizer_cli wrote; its file comment says how."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self):
        value, = struct.unpack_from("<I", self.data, self.at)
        self.at += 4
        return value

    def ids(self):
        count = self.number()
        values = list(struct.unpack_from(f"<{count}i", self.data, self.at))
        self.at += 4 * count
        return values

    def text(self):
        length = self.number()
        value = self.data[self.at:self.at + length]
        self.at += length
        return value.decode("utf-8", "surrogateescape")

    def next(self):
        return self.ids(), self.ids(), self.text(), self.text(), self.number() == 1


def ours(cli, path, texts):
    data = b"".join(struct.pack("<I", len(t)) + t for t in texts)
    answers = Answers(subprocess.run([cli, path], input=data, stdout=subprocess.PIPE, check=True).stdout)
    return [answers.next() for _ in texts]


def theirs(tokenizer, plain, texts):
    encoded = [e.ids for e in tokenizer.encode_batch_fast(texts)]
    as_text = [e.ids for e in plain.encode_batch_fast(texts, add_special_tokens=False)]
    kept = tokenizer.decode_batch(encoded, skip_special_tokens=False)
    skipped = tokenizer.decode_batch(encoded, skip_special_tokens=True)
    return zip(encoded, as_text, kept, skipped)


FIELDS = ("ids", "ids of plain text", "text", "text without special tokens")


def compare(cli, name, tokenizer, path, count, seed):
    """Prints the first differences; returns how many strings differ."""
    rng = random.Random(f"{seed} {name}")
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.encode_special_tokens = True
    different = done = tokens = 0
    while done < count:
        texts = [random_text(rng) for _ in range(min(10000, count - done))]
        raw = [damaged(rng, t) if rng.random() < .05 else t.encode() for t in texts]
        texts = [t.decode("utf-8", "replace") for t in raw]
        for text, want, got in zip(texts, theirs(tokenizer, plain, texts), ours(cli, path, raw)):
            tokens += len(want[0])
            wrong = [f for f, w, g in zip(FIELDS, want, got) if w != g]
            if not got[4]:
                wrong.append("streamed text")
            if not wrong:
                continue
            different += 1
            if different <= 3:
                print(f"  {name}: {', '.join(wrong)} of {text!r}\n    library {want}\n    ours    {got}")
        done += len(texts)
    print(f"{name:26} {count} strings, {tokens} tokens: {different} different", flush=True)
    return different


# ---------------------------------------------------------------- goldens

def golden_answers(tokenizer, texts):
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.encode_special_tokens = True
    return [dict(zip(("text", "ids", "plain_ids", "decoded", "decoded_without_special"), (t, *a)))
            for t, a in zip(texts, theirs(tokenizer, plain, texts))]


def golden_files(name):
    return os.path.join(GOLDENS, name + ".json"), os.path.join(GOLDENS, name + ".cases.json")


def write_goldens():
    os.makedirs(GOLDENS, exist_ok=True)
    for name in GOLDEN_KINDS:
        rng = random.Random(name)
        texts = ["", " ", "a", *rng.sample(SENTENCES, 8), *(random_text(rng) for _ in range(45))]
        tokenizer = KINDS[name]()
        path, cases = golden_files(name)
        with open(path, "w", encoding="utf-8") as out:
            out.write(tokenizer.to_str() + "\n")
        with open(cases, "w", encoding="utf-8") as out:
            rows = (json.dumps(a, separators=(",", ":")) for a in golden_answers(tokenizer, texts))
            out.write("[\n" + ",\n".join(rows) + "\n]\n")


def check_goldens():
    wrong = 0
    for name in GOLDEN_KINDS:
        path, cases = golden_files(name)
        with open(cases, encoding="utf-8") as stored:
            want = json.load(stored)
        got = golden_answers(Tokenizer.from_file(path), [c["text"] for c in want])
        if got != want:
            print(f"{cases}: not what the library answers now")
            wrong += 1
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--strings", type=int, default=20000, help="for each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cli", default=os.path.join(ROOT, "build/cpu/src/tokenizer/tokenizer_cli"))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.write:
        return write_goldens()
    if arguments.check:
        return check_goldens()
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds or KINDS:
            tokenizer = KINDS[kind]() if kind in KINDS else Tokenizer.from_file(kind)
            path = os.path.join(folder, "tokenizer.json")
            with open(path, "w", encoding="utf-8") as out:
                out.write(tokenizer.to_str())
            name = kind if kind in KINDS else os.path.basename(os.path.dirname(os.path.abspath(kind)))
            different += compare(arguments.cli, name, tokenizer, path, arguments.strings, arguments.seed)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
