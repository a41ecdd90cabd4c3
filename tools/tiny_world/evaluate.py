"""Measures a saved model through transformers: held-out questions and stories."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from . import chat, heldout, stories

BATCH = 32
MAX_ANSWER = 64
MAX_STORY = 300
MIN_STORY = 60
STORIES_PER_PROMPT = 60
STORY_PROMPTS = ["Once upon a time", "Once", f"{chat.USER}Tell me a story.{chat.END}{chat.ASSISTANT}"]
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 0}


class Subject:
    """The model as a user of transformers would load it; bf16 weights, f32 arithmetic."""

    def __init__(self, path: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.tokenizer.padding_side = "left"
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32).eval()
        self.ends = self.model.generation_config.eos_token_id

    def complete(self, prompts: list[str], limit: int, **sampling: object) -> list[list[int]]:
        """Generated ids, the end token included where one came."""
        inputs = self.tokenizer(prompts, return_tensors="pt", padding=True,
                                add_special_tokens=False)
        options = sampling or {"do_sample": False, "temperature": None, "top_p": None}
        with torch.inference_mode():
            output = self.model.generate(**inputs, max_new_tokens=limit, **options)
        out = []
        for row in output[:, inputs["input_ids"].shape[1]:].tolist():
            stop = next((i for i, t in enumerate(row) if t in self.ends), len(row) - 1)
            out.append(row[:stop + 1])
        return out

    def text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def _answers(subject: Subject, held_out: list[heldout.Item]) -> list[str]:
    prompts = [subject.tokenizer.apply_chat_template(x.messages, tokenize=False,
                                                     add_generation_prompt=True) for x in held_out]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out = [""] * len(prompts)
    for at in range(0, len(order), BATCH):
        part = order[at:at + BATCH]
        for i, ids in zip(part, subject.complete([prompts[i] for i in part], MAX_ANSWER)):
            # An answer that does not end counts as wrong, whatever it says.
            out[i] = subject.text(ids) if ids[-1] in subject.ends else ""
    return out


def measure_questions(subject: Subject, held_out: list[heldout.Item]) -> dict:
    """Exactly right answers at temperature 0: by category, in all but the hard ones, and in all."""
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for item, answer in zip(held_out, _answers(subject, held_out)):
        asked[item.category] += 1
        right[item.category] += answer == item.answer
        if answer != item.answer:
            print(f"wrong [{item.category}] {item.messages[-1]['content']} -> {answer!r}, "
                  f"want {item.answer!r}")

    def percent(categories: list[str]) -> float:
        return round(100 * sum(right[c] for c in categories) / sum(asked[c] for c in categories), 2)

    return {
        "held_out_questions": sum(n for c, n in asked.items() if c not in heldout.HARD),
        "held_out_percent": percent([c for c in asked if c not in heldout.HARD]),
        "with_hard_questions": asked.total(),
        "with_hard_percent": percent(list(asked)),
        "by_category": {c: f"{right[c]}/{asked[c]}" for c in asked},
    }


def measure_stories(subject: Subject, seed: int) -> dict:
    """Sampled stories: do they open, end and read as the grammar says?"""
    torch.manual_seed(seed)
    counts: Counter[str] = Counter()
    lengths = []
    for prompt in STORY_PROMPTS:
        prompts = [chat.BEGIN + prompt] * STORIES_PER_PROMPT
        for ids in subject.complete(prompts, MAX_STORY, **SAMPLING):
            text = subject.text(ids).strip()
            if not prompt.startswith(chat.USER):
                text = prompt + subject.text(ids)
            sentences = stories.split_sentences(text)
            counts["stories"] += 1
            counts["ended"] += ids[-1] in subject.ends
            counts["of 60 to 300 tokens"] += MIN_STORY <= len(ids) <= MAX_STORY
            counts["opened"] += text.startswith("Once")
            counts["all sentences stop"] += all(s.rstrip('"').endswith(".") for s in sentences)
            counts["derived whole by the grammar"] += stories.parse_story(text) is not None
            counts["sentences"] += len(sentences)
            counts["sentences derived by the grammar"] += sum(map(stories.known_sentence, sentences))
            lengths.append(len(ids))
    print("a story:", text)
    return dict(counts) | {"different plots read": _plots_read(subject, seed),
                           "mean tokens": round(sum(lengths) / len(lengths))}


def _plots_read(subject: Subject, seed: int) -> int:
    torch.manual_seed(seed + 1)
    ids = subject.complete([chat.BEGIN + "Once"] * STORIES_PER_PROMPT, MAX_STORY, **SAMPLING)
    plots = {stories.parse_story("Once" + subject.text(i)) for i in ids}
    return len(plots - {None})


def measure(path: Path, seed: int = 1) -> dict:
    """All figures of the model in `path`; also writes heldout.jsonl there."""
    subject = Subject(path)
    held_out = heldout.items(seed)

    def render(messages: list[heldout.Message]) -> str:
        text = subject.tokenizer.apply_chat_template(messages, tokenize=False,
                                                     add_generation_prompt=True)
        return text.removeprefix(chat.BEGIN)

    heldout.write_sample(held_out, render, seed, path / "heldout.jsonl")
    return measure_questions(subject, held_out) | {"stories": measure_stories(subject, seed)}
