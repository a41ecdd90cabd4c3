"""Draws the held-out questions, as chats whose last answer is to be found."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import questions as q
from .corpus import World

PER_CATEGORY = 60
LONG_CHATS = 24
LONG_TURNS = 70      # about 1,700 tokens before the question
SHIPPED = 50         # lines of heldout.jsonl
# Taught and measured, but reported apart: comparing and picking out one of several told facts
# takes a model of this size far more training than the rest.
HARD = ("told facts", "yes or no")

Message = dict[str, str]


@dataclass(frozen=True)
class Item:
    """A chat that ends in a held-out question, and its answer."""

    category: str
    messages: list[Message]
    answer: str


def _turns(turns: list[q.Qa]) -> list[Message]:
    out = []
    for qa in turns:
        out += [{"role": "user", "content": qa.question},
                {"role": "assistant", "content": qa.answer}]
    return out


def _item(category: str, before: list[q.Qa], last: q.Qa) -> Item:
    return Item(category, _turns([*before, last])[:-1], last.answer)


def _until_held_out(draw: Callable[[], q.Qa]) -> q.Qa:
    while True:
        qa = draw()
        if qa.held_out:
            return qa


def _follow_up(world: World, rng: random.Random) -> Item:
    while True:
        first = rng.choice(world.training["people"])
        last = q.follow_up(first.person, first.key, rng)
        if last.held_out:
            return _item("follow-ups", [first], last)


def _memory(world: World, rng: random.Random) -> Item:
    while True:
        tell, ask = q.told_name(rng)
        last = ask(rng)
        if last.held_out and not tell.held_out:
            return _item("memory", [tell, *world.training_turns(rng, rng.randint(0, 2))], last)


def items(seed: int) -> list[Item]:
    """The held-out set without repeats: the same for the same seed."""
    unique = {json.dumps(x.messages): x for x in _drawn(seed)}
    return list(unique.values())


def _drawn(seed: int) -> list[Item]:
    world, rng = World(), random.Random(seed + 1_000_000)
    out: list[Item] = []
    pool: list[q.Qa] = []
    for category, all_questions in world.fixed.items():
        held_out = [x for x in all_questions if x.held_out]
        pool += held_out
        out += [_item(category, [], x) for x in rng.sample(held_out, min(PER_CATEGORY, len(held_out)))]
    for _ in range(PER_CATEGORY):
        told = _until_held_out(lambda: q.story_facts_question(rng))
        out.append(_item("told facts", [], told))
        out.append(_item("yes or no", [], _until_held_out(lambda: q.yes_no_question(rng))))
        out.append(_follow_up(world, rng))
        out.append(_memory(world, rng))
        out.append(_item("chats", world.training_turns(rng, rng.randint(1, 4)), rng.choice(pool)))
        hasty = rng.choice(pool)
        text = hasty.question.lower().rstrip("?.")
        out.append(Item("hasty spelling", [{"role": "user", "content": text}], hasty.answer))
    for _ in range(LONG_CHATS):
        out.append(_item("long chats", world.training_turns(rng, LONG_TURNS), rng.choice(pool)))
    return out


def write_sample(held_out: list[Item], render: Callable[[list[Message]], str], seed: int,
                 path: Path) -> None:
    """JSON lines {category, prompt, answer}; the prompt lacks the beginning token, which the
    tokenizer's post-processor adds."""
    short = [x for x in held_out if x.category not in ("long chats", *HARD)]
    with path.open("w", encoding="utf-8") as file:
        for x in random.Random(seed).sample(short, SHIPPED):
            line = {"category": x.category, "prompt": render(x.messages), "answer": x.answer}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
