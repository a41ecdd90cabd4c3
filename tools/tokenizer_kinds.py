"""Small tokenizers of every kind that published models use, trained on the spot with the `tokenizers`
library, for tools/tokenizer_diff.py."""
import functools
import io
import json
import os
import random
import tempfile

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
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
TEKKEN = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"\p{N}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
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


def roberta():
    tokenizer = byte_level(special=("<s>", "<pad>", "</s>", "<unk>"))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    return tokenizer


def byte_level_normalizer():
    """Bytes become characters before anything is cut, added tokens and all."""
    tokenizer = byte_level(normalizer=normalizers.Sequence([normalizers.NFC(), normalizers.ByteLevel()]),
                           steps=[pre_tokenizers.Split(Regex(r"Ġ?[^Ġ]+|Ġ+"), "isolated")])
    tokenizer = edited(tokenizer, lambda d: d.update(pre_tokenizer=d["pre_tokenizer"]["pretokenizers"][0]))
    return with_added(tokenizer, ADDED)


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


# ---------------------------------------------------------------- Unigram and WordPiece

def charsmap(name=None, rules=()):
    """SentencePiece's character map of that name, or of pairs of an old and a new text."""
    import sentencepiece  # only these kinds need it
    from sentencepiece import sentencepiece_model_pb2
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as table:
        for pair in rules:
            table.write("\t".join(" ".join(f"{ord(c):X}" for c in part) for part in pair) + "\n")
        table.flush()
        rule = {"normalization_rule_tsv": table.name} if rules else {"normalization_rule_name": name}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES[:2]), model_writer=model, vocab_size=60,
            hard_vocab_limit=False, minloglevel=2, **rule)
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    return normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)


# In the manner of nmt_nfkc: what it maps together, in characters and in clusters.
RULES = [(c, " ") for c in "\t\n\r\u00a0\u1680\u2003\u200b\u200e\u2028\u3000\ufeff\ufffd"] + [
    ("\r\n", " "), ("ﬁ", "fi"), ("½", "1⁄2"), ("①", "1"), ("Ⅳ", "IV"), ("㌔", "キロ"), ("…", "..."),
    ("e\u0301", "\u00e9"), ("E\u0301", "\u00c9"), ("a\u0308", "\u00e4"), ("か\u3099", "\u304c"), ("ｶﾞ", "ガ"),
    ("ｱ", "ア"), ("\u0001", ""), ("\u00ad", ""), ("\u200d", ""), ("ſ", "s"), ("\u0915\u093c", "\u0958"),
    ("\u1100\u1161", "\uac00"), ("\u212b", "\u00c5"), ("ö", "oe"), ("🙂", ":)"), ("’", "'"), ("ａ", "a"), ("⁇", "??")]


def unigram(normalizer=None, pre_tokenizer=None, decoder=None, single="$A </s>", fallback=False,
            added=(), size=900):
    specials = ["<unk>", "<s>", "</s>"]
    fallbacks = [f"<0x{b:02X}>" for b in range(256)] if fallback else []
    tokenizer = Tokenizer(models.Unigram())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(SENTENCES * 4, trainers.UnigramTrainer(
        vocab_size=size, special_tokens=specials + fallbacks, unk_token="<unk>", show_progress=False))
    tokenizer.decoder = decoder or decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<s>", 1), ("</s>", 2)])

    def finish(data):
        data["added_tokens"] = data["added_tokens"][:3]
        data["model"]["byte_fallback"] = fallback
    return with_added(edited(tokenizer, finish), added)


def unigram_ties():
    """Many cuts of a text have nearly the same sum, and tokens are listed more than once."""
    rng = random.Random(3)
    vocab = [["<unk>", 0.0], ["▁", -2]] + [[c, -rng.choice((1, 2, 3.25))] for c in "etaoinsrh"]
    for _ in range(300):
        token = "".join(rng.choices("▁etaoinsrh", k=rng.randrange(2, 7)))
        vocab.append([token, -len(token) * rng.choice((.5, .3333333432674408, .1000000014901161, 1))])
    vocab += [["<0x41>", -1], ["▁t", -1.7], ["", -3], ["<unk>x", -1]]
    data = json.loads(Tokenizer(models.Unigram([("<unk>", 0.0)], 0, False)).to_str())
    data["model"]["vocab"] = vocab
    data["normalizer"] = json.loads('{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}')
    return Tokenizer.from_str(json.dumps(data))


def word_piece(normalizer, pre_tokenizer=None, decoder=None, processor="template", added=(), size=900,
               **options):
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    prefix = options.get("continuing_subword_prefix", "##")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", **options))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(SENTENCES * 4, trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=specials, continuing_subword_prefix=prefix,
        show_progress=False, limit_alphabet=300))
    tokenizer.decoder = decoder or decoders.WordPiece(prefix)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]) \
        if processor == "template" else processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    if "max_input_chars_per_word" in options:
        tokenizer = edited(tokenizer, lambda d: d["model"].update(options))
    return with_added(tokenizer, added)


def word_level():
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Nmt()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.CharDelimiterSplit("e"), pre_tokenizers.Whitespace(),
        pre_tokenizers.FixedLength(4)])
    tokenizer.train_from_iterator(SENTENCES, trainers.WordLevelTrainer(
        vocab_size=400, special_tokens=["<unk>"], show_progress=False))
    return tokenizer


def cut(pattern, behavior="isolated", invert=False):
    """Shows where a pattern cuts: a byte at the start of a word has another id than one inside."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {prefix + c: i for i, (prefix, c) in enumerate((p, c) for p in ("", "##") for c in alphabet)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="!", max_input_chars_per_word=100000))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior, invert),
        pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.WordPiece("##", cleanup=False)
    return tokenizer


# Patterns of published tokenizers, and of what they are made of.
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": GPT4, "qwen2": QWEN2, "gpt4o": GPT4O, "han": HAN, "tekken": TEKKEN,
    "cl100k_possessive": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| "
                         r"?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "deepseek_v3": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?"
                   r"[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "deepseek_cjk": r"[一-龥\u3040-ゟ゠-ヿ]+",
    "bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "falcon": "[0-9][0-9][0-9]",
    "digits_right": r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))",
    "digits_lookbehind": r"(?<=\d)(?=(\d{3})+\b)|(?<!\p{L})\p{Lu}",
    "camel": r"[\p{Lu}]+(?![\p{Ll}])|[\p{Lu}]?[\p{Ll}]+|(?<name>\p{Lo})|\p{M}+",
    "case_blind": r"(?i)quick|[a-c]+|ſ|K|Σ|(?-i:x)|\p{Lu}ab",
    "word": r"\w+", "not_word": r"\W+", "word_class": r"[\w]+", "not_word_class": r"[\W]+",
    "digit": r"\d+", "not_digit": r"\D+", "space": r"\s+", "not_space": r"\S+", "hex": r"\h+",
    "not_hex": r"[\H]+", "boundary": r"\b", "not_boundary": r"\B", "newline": r"\R", "lines": r"^.*$",
    "any": r"(?m:.)", "anchors": r"\A.|.\z|.\Z",
    "posix_alpha": "[[:alpha:]]+", "posix_alnum": "[[:alnum:]]+", "posix_punct": "[[:punct:]]+",
    "posix_space": "[[:space:]]+", "posix_upper": "[[:upper:]]+", "posix_lower": "[[:lower:]]+",
    "posix_digit": "[[:digit:]]+", "posix_xdigit": "[[:xdigit:]]+", "posix_cntrl": "[[:cntrl:]]+",
    "posix_blank": "[[:blank:]]+", "posix_word": "[[:word:]]+", "posix_ascii": "[[:ascii:]]+",
    "posix_not": "[[:^alpha:][:space:]]+",
    "upper": r"\p{Lu}+|\p{Upper}+|\p{Lt}", "lower": r"\p{Ll}+|\p{Lower}+|\p{Lm}", "alpha": r"\p{Alpha}+",
    "alnum": r"\p{Alnum}+", "marks": r"\p{Mn}+|\p{Mc}+|\p{Me}", "numbers": r"\p{Nd}+|\p{Nl}+|\p{No}+",
    "punctuation": r"\p{Pc}+|\p{Pd}+|\p{Ps}+|\p{Pe}+|\p{Pi}+|\p{Pf}+|\p{Po}+",
    "symbols": r"\p{Sm}+|\p{Sc}+|\p{Sk}+|\p{So}+", "separators": r"\p{Zs}+|\p{Zl}|\p{Zp}|\p{Cc}+",
    "format": r"\p{Cf}+|\p{Co}+", "not_letter": r"\P{L}+", "not_letter_too": r"\p{^L}+",
    "scripts": r"\p{Latin}+|\p{Greek}+|\p{Cyrillic}+|\p{Arabic}+|\p{Hebrew}+|\p{Devanagari}+",
    "scripts_east": r"\p{Han}+|\p{Hiragana}+|\p{Katakana}+|\p{Hangul}+|\p{Thai}+|\p{Common}+",
    "emoji": r"\p{Emoji}+", "pictographic": r"\p{Extended_Pictographic}+",
    "and": r"[\p{L}&&[^\p{Latin}]]+|[a-z&&[^aeiou]]+|[\p{L}\p{M}&&\p{Han}]+|[^\s&&\p{P}]",
    "nested": r"[a-c[x-z[0-9]]\-\]]+|[^[^a-f]]+",
    "counts": r"a{2}|\d{2,}|\w{,3}x|[aeiou]{1,2}?|\p{L}{3}+|.{0,2}é",
    "alternatives": r"(?:the|quick|(?>br|b)own)(?=\s)|(?#none)lazy|",
}

SPACES = normalizers.Replace(Regex(" {2,}"), " ")
WORDS_THEN_MARKS = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),
                                            pre_tokenizers.Metaspace()])
MASK = (AddedToken("<mask>", special=True, lstrip=True), AddedToken("<extra_id_0>", special=True),
        AddedToken("ab", normalized=True), AddedToken("Étude", normalized=True))
BERT_MASK = (AddedToken("[X]", special=True, lstrip=True), AddedToken("étude", normalized=True),
             AddedToken("word", single_word=True, normalized=False))
nmt_nfkc = functools.partial(charsmap, "nmt_nfkc")

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
    "roberta": lambda: roberta(),
    "phi2": lambda: with_added(byte_level(), [
        AddedToken(" " * n, normalized=True) for n in range(31, 1, -1)] + [
        AddedToken("\t" * n, normalized=True) for n in range(9, 1, -1)]),
    "phi3": lambda: with_added(sentencepiece(normalizers.Sequence([
        normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])), [
        AddedToken(t, special=True, rstrip=True) for t in ("<|end|>", "<|user|>", "<|begin|>", "</s>")]),
    "mistral_tekken": lambda: byte_level(TEKKEN, ignore_merges=True, bos="<s>",
                                         special=("<unk>", "<s>", "</s>", "[INST]", "[/INST]")),
    "mistral_v3": lambda: with_added(metaspace("first", False), [
        AddedToken(t, special=True) for t in ("[INST]", "[/INST]", "[TOOL_CALLS]")]),
    "deepseek_v3": lambda: byte_level(steps=[
        pre_tokenizers.Split(Regex(p), "isolated")
        for p in (r"\p{N}{1,3}", PATTERNS["deepseek_cjk"], PATTERNS["deepseek_v3"])],
        special=("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"), bos="<｜begin▁of▁sentence｜>"),
    "falcon": lambda: byte_level(steps=[
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(False, use_regex=True),
        pre_tokenizers.Digits(False), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")]),
    "bloom": lambda: byte_level(PATTERNS["bloom"]),
    "smollm": lambda: byte_level(steps=[pre_tokenizers.Digits(individual_digits=True),
                                        pre_tokenizers.ByteLevel(False, use_regex=True)],
                                 special=("<|endoftext|>", "<|im_start|>", "<|im_end|>")),
    "neox": lambda: with_added(byte_level(normalizer=normalizers.NFC()), [
        AddedToken("  ", normalized=True), AddedToken("    ", normalized=True),
        AddedToken("<|a|>", special=True, normalized=False)]),
    "byte_level_normalizer": byte_level_normalizer,
    "gemma3": lambda: with_added(sentencepiece(
        normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])),
        [AddedToken("▁" * n, normalized=False) for n in range(2, 8)] +
        [AddedToken("\n" * n, normalized=False) for n in range(2, 5)] +
        [AddedToken(t, special=True) for t in ("<start_of_turn>", "<end_of_turn>", "<pad>")]),
    "t5": lambda: unigram(nmt_nfkc(), WORDS_THEN_MARKS, added=MASK),
    "xlm_r": lambda: unigram(normalizers.Sequence([nmt_nfkc(), SPACES]), WORDS_THEN_MARKS,
                             single="<s> $A </s>", added=MASK),
    "mt5": lambda: unigram(normalizers.Sequence([
        nmt_nfkc(), normalizers.Strip(False, True), normalizers.Replace(Regex(" {2,}"), "▁")]), added=MASK),
    "albert": lambda: unigram(normalizers.Sequence([
        normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
        normalizers.StripAccents(), normalizers.Lowercase(), charsmap("nmt_nfkc_cf"), SPACES])),
    "precompiled_nfkc": lambda: unigram(charsmap("nfkc"), pre_tokenizers.Metaspace(
        prepend_scheme="first", split=False), decoders.Metaspace(prepend_scheme="first"), added=MASK),
    "precompiled_nfkc_cf": lambda: words(pre_tokenizers.Whitespace(), charsmap("nfkc_cf")),
    "unigram_rules": lambda: unigram(charsmap(rules=RULES), added=MASK),
    "unigram_rules_first": lambda: unigram(charsmap(rules=RULES), pre_tokenizers.Metaspace(
        prepend_scheme="first"), decoders.Metaspace(prepend_scheme="first"), "<s> $A", added=ADDED),
    "unigram_fallback": lambda: unigram(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoder=decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                   decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
        single="<s> $A", fallback=True),
    "unigram_nmt": lambda: unigram(normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), SPACES]),
                                   pre_tokenizers.Metaspace(split=False)),
    "unigram_ties": unigram_ties,
    "bert_uncased": lambda: word_piece(normalizers.BertNormalizer(), added=BERT_MASK),
    "bert_cased": lambda: word_piece(normalizers.BertNormalizer(lowercase=False), processor="bert"),
    "bert_accents": lambda: word_piece(normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False),
        decoder=decoders.WordPiece("##", cleanup=False)),
    "bert_short_words": lambda: word_piece(
        normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]),
        pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation("contiguous")]),
        max_input_chars_per_word=7, continuing_subword_prefix="@@"),
    "word_level": word_level,
    "tiny": lambda: Tokenizer.from_file(TINY),
}
KINDS.update({"cut_" + name: functools.partial(cut, pattern) for name, pattern in PATTERNS.items()})
# Kept in tests/golden: not those whose file would be large or say nothing new.
GOLDEN_KINDS = [k for k in KINDS if not k.startswith("cut_") and k not in (
    "tiny", "gpt2_prefix_space", "starcoder", "smollm", "phi2", "phi3", "mistral_tekken", "mistral_v3",
    "deepseek_v3", "falcon", "bloom", "neox", "gemma3", "roberta", "t5", "xlm_r", "mt5", "albert", "precompiled_nfkc",
    "precompiled_nfkc_cf", "unigram_nmt", "bert_accents")]
