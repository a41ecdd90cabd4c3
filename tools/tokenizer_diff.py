#!/usr/bin/env python3
"""Compares our tokenizer with the `tokenizers` library on random text; no difference is expected.

  tools/tokenizer_diff.py [--strings N] [--seed S] [--cli PATH] [KIND ...]
      trains a small tokenizer of each kind (see tokenizer_kinds.py), encodes N random strings with
      both, decodes what came out, and prints a line for each kind. KIND may also be a
      tokenizer.json. Strings with code points that are not in Unicode 14 are counted apart, and what
      differs among them is listed.
  tools/tokenizer_diff.py --write [KIND ...]
      makes tests/golden/tokenizers anew: a tokenizer of each kind and what the library does with
      some texts.
  tools/tokenizer_diff.py --check
      compares those answers with the library's now.

Needs the packages of tools/requirements.txt. Debian's PCRE2 and utf8proc know the code points of
Unicode 14 and no later ones.
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

from tokenizers import Tokenizer

from tokenizer_kinds import GOLDEN_KINDS, KINDS, ROOT, SENTENCES

GOLDENS = os.path.join(ROOT, "tests/golden/tokenizers")

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


def every_character(rng, together):
    """Texts that hold every character between them, so many in each."""
    between = ["", " ", "a", "1", ".", "\u0301", "▁", "\n"]
    chars = [c for c in EVERYTHING if unicodedata.category(c) != "Co"] + ["\ue000", "\uf8ff", "\U0010fffd"]
    return ["".join(c + rng.choice(between) for c in chars[at:at + together])
            for at in range(0, len(chars), together)]


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


def unassigned(text):
    """What Unicode 14 does not know: damaged bytes may spell it, and the library may know it by now."""
    return {c for c in text if unicodedata.category(c) == "Cn"}


class Count:
    def __init__(self):
        self.strings = self.tokens = self.different = self.later = 0
        self.later_different = set()

    def add(self, other):
        for name in ("strings", "tokens", "different", "later"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.later_different |= other.later_different

    def line(self, name):
        return (f"{name:26} {self.strings} strings, {self.tokens} tokens: {self.different} different; "
                f"{self.later} strings more with code points that Unicode 14 has not assigned")


def compare(cli, name, tokenizer, path, wanted, seed):
    """Prints the first differences."""
    rng = random.Random(f"{seed} {name}")
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.encode_special_tokens = True
    count = Count()
    # A long run also sees every character, in and out of words. The library takes cubic time where
    # all of a text is one word, as for many of the patterns.
    texts = every_character(rng, 12 if name.startswith("cut_") else 60) if wanted >= 5000 else []
    while count.strings < wanted:
        texts = texts or [random_text(rng) for _ in range(min(10000, wanted - count.strings))]
        raw = [damaged(rng, t) if rng.random() < .05 else t.encode() for t in texts]
        texts = [t.decode("utf-8", "replace") for t in raw]
        for text, want, got in zip(texts, theirs(tokenizer, plain, texts), ours(cli, path, raw)):
            wrong = [f for f, w, g in zip(FIELDS, want, got) if w != g]
            if not got[4]:
                wrong.append("streamed text")
            later = unassigned(text)
            if later:
                count.later += 1
                if wrong:
                    count.later_different |= later
                continue
            count.strings += 1
            count.tokens += len(want[0])
            count.different += bool(wrong)
            if wrong and count.different <= 3:
                print(f"  {name}: {', '.join(wrong)} of {text!r}\n    library {want}\n    ours    {got}")
        texts = []
    print(count.line(name), flush=True)
    return count


# ---------------------------------------------------------------- goldens

def golden_answers(tokenizer, texts):
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.encode_special_tokens = True
    return [dict(zip(("text", "ids", "plain_ids", "decoded", "decoded_without_special"), (t, *a)))
            for t, a in zip(texts, theirs(tokenizer, plain, texts))]


def golden_texts(kind):
    rng = random.Random(kind)
    return ["", " ", "  a", *rng.sample(SENTENCES, 3), *(random_text(rng) for _ in range(20))]


def write_cases(path, answers):
    with open(path, "w", encoding="utf-8") as out:
        rows = (json.dumps(a, separators=(",", ":")) for a in answers)
        out.write("[\n" + ",\n".join(rows) + "\n]\n")


def is_stale(path, answers_to):
    """True, and a line printed, if the stored answers are not what the reference says now."""
    with open(path, encoding="utf-8") as stored:
        want = json.load(stored)
    if answers_to([c["text"] for c in want]) == want:
        return False
    print(f"{path}: not what the reference answers now")
    return True


def golden_files(name):
    return os.path.join(GOLDENS, name + ".json"), os.path.join(GOLDENS, name + ".cases.json")


def write_goldens(kinds):
    os.makedirs(GOLDENS, exist_ok=True)
    for name in kinds or GOLDEN_KINDS:
        rng = random.Random(name)
        texts = ["", " ", "a", *rng.sample(SENTENCES, 8), *(random_text(rng) for _ in range(45))]
        tokenizer = KINDS[name]()
        path, cases = golden_files(name)
        with open(path, "w", encoding="utf-8") as out:
            out.write(tokenizer.to_str() + "\n")
        write_cases(cases, golden_answers(tokenizer, texts))


def check_goldens():
    return sum(is_stale(cases, lambda texts: golden_answers(Tokenizer.from_file(path), texts))
               for path, cases in map(golden_files, GOLDEN_KINDS))


# ---------------------------------------------------------------- command line

def run(kinds, compare_kind, write, check, strings):
    """The command line of a comparison. `compare_kind(arguments, kind, folder)` gives a Count, the
    folder being a temporary one; `write(kinds)` and `check()` are for its goldens."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--strings", type=int, default=strings, help="for each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cli", default=os.path.join(ROOT, "build/cpu/src/tokenizer/tokenizer_cli"))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.write:
        return write(arguments.kinds)
    if arguments.check:
        return check()
    total = Count()
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds or kinds:
            total.add(compare_kind(arguments, kind, folder))
    print(total.line(f"{len(arguments.kinds or kinds)} kinds"))
    if total.later_different:
        print("of those, different:", *sorted(f"U+{ord(c):04X}" for c in total.later_different))
    return 1 if total.different else 0


def compare_kind(arguments, kind, folder):
    tokenizer = KINDS[kind]() if kind in KINDS else Tokenizer.from_file(kind)
    path = os.path.join(folder, "tokenizer.json")
    with open(path, "w", encoding="utf-8") as out:
        out.write(tokenizer.to_str())
    name = kind if kind in KINDS else os.path.basename(os.path.dirname(os.path.abspath(kind)))
    return compare(arguments.cli, name, tokenizer, path, arguments.strings, arguments.seed)


if __name__ == "__main__":
    sys.exit(run(KINDS, compare_kind, write_goldens, check_goldens, strings=20000))
