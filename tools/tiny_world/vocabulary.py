"""Trains the byte-level BPE and writes the files a tokenizer and a generator need."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from . import chat, corpus

VOCAB_SIZE = 2048
CONTEXT = 2048
TRAINING_DOCUMENTS = 30000
# Words with the space or mark before them, single digits, runs of marks, line ends, spaces.
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def train_tokenizer(seed: int) -> Tokenizer:
    """A byte-level BPE over the corpus; special tokens come first, then all 256 bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCAB_SIZE, show_progress=False,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in chat.SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    texts = itertools.islice(corpus.documents(corpus.World(), seed), TRAINING_DOCUMENTS)
    tokenizer.train_from_iterator(_without_specials(texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{chat.BEGIN} $A", pair=f"{chat.BEGIN} $A {chat.BEGIN} $B",
        special_tokens=[(chat.BEGIN, tokenizer.token_to_id(chat.BEGIN))])
    return tokenizer


def _without_specials(texts: itertools.islice) -> list[str]:
    out = []
    for text in texts:
        for token in chat.SPECIAL_TOKENS:
            text = text.replace(token, "\n")
        out.extend(line for line in text.split("\n") if line)
    return out


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer_files(tokenizer: Tokenizer, out: Path) -> None:
    """tokenizer.json, tokenizer_config.json and generation_config.json."""
    tokenizer.save(str(out / "tokenizer.json"), pretty=True)
    _write_json(out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": chat.BEGIN,
        "eos_token": chat.END_OF_TEXT,
        "pad_token": chat.END_OF_TEXT,
        "additional_special_tokens": chat.SPECIAL_TOKENS[2:],
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": chat.CHAT_TEMPLATE,
    })
    token = tokenizer.token_to_id
    _write_json(out / "generation_config.json", {
        "bos_token_id": token(chat.BEGIN),
        "eos_token_id": [token(chat.END_OF_TEXT), token(chat.END)],
        "pad_token_id": token(chat.END_OF_TEXT),
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.95,
    })
