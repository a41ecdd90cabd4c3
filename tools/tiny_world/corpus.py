"""Endless training documents in a fixed order, packed into rows of token ids."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from . import chat
from . import questions as q
from . import stories
from . import world as w

ROW_POOL = 64       # documents from which the packer may choose the next of a row
USER_SHARE = 0.15   # share of the user's tokens that are trained on


@dataclass(frozen=True)
class Mix:
    """Shares of the corpus."""

    story: float                 # of documents
    memory: float                # chance of a turn that tells something to remember
    categories: dict[str, int]   # weights of the questions


# Facts are learned first and quickly; what must be worked out takes most of the time.
EARLY = Mix(0.16, 0.15, {
    "people": 26, "told facts": 22, "sums": 16, "counting": 6, "numbers": 3, "places": 8,
    "colours": 5, "objects": 5, "animals": 7, "calendar": 6, "yes or no": 5, "small talk": 4})
LATE = Mix(0.12, 0.3, {
    "people": 14, "told facts": 36, "sums": 34, "counting": 14, "numbers": 10, "places": 4,
    "colours": 3, "objects": 3, "animals": 4, "calendar": 7, "yes or no": 16, "small talk": 3})
EARLY_DOCUMENTS = 16448
LONG_CHAT_SHARE = 0.15  # of the documents made for long rows

STORY_REQUESTS = ["Tell me a story{}.", "Can you tell me a story{}?", "Please tell me a story{}.",
                  "Write a story{}.", "Write a short story{}.", "I would like to hear a story{}."]


def story_request(rng: random.Random) -> tuple[str, str]:
    """A wish for a story, with or without its hero, and the story."""
    request = rng.choice(STORY_REQUESTS)
    roll = rng.random()
    if roll < 0.3:
        return request.format(""), stories.write_story(rng)
    if roll < 0.7:
        kind = rng.choice(stories.ALL_KINDS)
        return request.format(f" about a {kind}"), stories.write_story(rng, kind=kind)
    name = rng.choice(stories.ALL_NAMES)
    return request.format(f" about {name}"), stories.write_story(rng, name=name)


class World:
    """Draws questions; `training_question` never returns a held-out one."""

    def __init__(self) -> None:
        self.fixed = q.fixed_questions()
        self.training = {c: [x for x in qs if not x.held_out] for c, qs in self.fixed.items()}

    def training_question(self, rng: random.Random, mix: Mix = EARLY) -> q.Qa:
        while True:
            category = rng.choices(list(mix.categories), list(mix.categories.values()))[0]
            if category == "small talk":
                return q.small_talk(rng)
            if category == "told facts":
                qa = q.story_facts_question(rng)
            elif category == "yes or no":
                qa = q.yes_no_question(rng)
            else:
                qa = rng.choice(self.training[category])
            if not qa.held_out:
                return qa

    def training_turns(self, rng: random.Random, count: int, mix: Mix = EARLY) -> list[q.Qa]:
        """A chat's turns: questions, follow-ups by pronoun, things to remember."""
        turns: list[q.Qa] = []
        ask = None
        while len(turns) < count:
            last = turns[-1] if turns else None
            if ask is not None and rng.random() < 0.4:
                qa, ask = ask(rng), None
            elif last and last.person and rng.random() < 0.5:
                qa = q.follow_up(last.person, last.key, rng)
            elif ask is None and count > 1 and rng.random() < mix.memory:
                qa, ask = q.told_name(rng)
            else:
                qa = self.training_question(rng, mix)
            if qa.category == "small talk" or not qa.held_out:
                turns.append(qa)
        return turns


def chat_text(world: World, rng: random.Random, turns: int, mix: Mix) -> str:
    """A whole chat, without the beginning token."""
    out = []
    if rng.random() < 0.06:
        out.append(f"{chat.SYSTEM}{rng.choice(chat.SYSTEM_PROMPTS)}{chat.END}")
    if rng.random() < 0.05:
        request, story = story_request(rng)
        out.append(chat.user_turn(chat.respell(request, rng), rng) + story + chat.END)
    for qa in world.training_turns(rng, turns, mix):
        out.append(chat.user_turn(chat.respell(qa.question, rng), rng) + qa.answer + chat.END)
    return "".join(out)


def long_documents(world: World, seed: int) -> Iterator[str]:
    """The documents of `documents`, with chats of many turns among them."""
    rng = random.Random(-seed)
    for text in documents(world, seed + 500_000, early=0):
        if rng.random() < LONG_CHAT_SHARE:
            yield chat.BEGIN + chat_text(world, rng, rng.randint(15, 80), LATE)
        else:
            yield text


def documents(world: World, seed: int, early: int = EARLY_DOCUMENTS) -> Iterator[str]:
    """Stories, chats and a few bare questions, for ever; each starts with the beginning token."""
    rng = random.Random(seed)
    for number in itertools.count():
        mix = EARLY if number < early else LATE
        roll = rng.random() - mix.story
        if roll < 0:
            yield chat.BEGIN + stories.write_story(rng) + chat.END_OF_TEXT
        elif roll < 0.04:
            qa = world.training_question(rng, mix)
            yield f"{chat.BEGIN}{chat.respell(qa.question, rng)} {qa.answer}{chat.END_OF_TEXT}"
        elif roll < 0.045:
            yield chat.BEGIN + chat_text(world, rng, rng.randint(10, 40), mix)
        else:
            turns = rng.choice([1, 1, 1, 2, 2, 3, 4, 5, 6])
            yield chat.BEGIN + chat_text(world, rng, turns, mix)


@dataclass
class Batch:
    """All [rows, length]: inputs, targets (-1 where nothing is learned), and which document of
    its row a position belongs to."""

    inputs: np.ndarray
    targets: np.ndarray
    document: np.ndarray


class Packer:
    """Packs whole documents into rows: each row starts with a document, the tail is padding."""

    def __init__(self, tokenizer: Tokenizer, seed: int, long: bool = False) -> None:
        self._tokenizer = tokenizer
        self._documents = (long_documents if long else documents)(World(), seed)
        self._rng = np.random.default_rng(seed)
        self._pool: list[np.ndarray] = []
        token = tokenizer.token_to_id
        self._pad = token(chat.END_OF_TEXT)
        self._opens = [token(chat.USER), token(chat.SYSTEM)]
        self._closes = token(chat.ASSISTANT)

    def _refill(self, longest: int) -> None:
        while len(self._pool) < ROW_POOL:
            texts = [next(self._documents) for _ in range(ROW_POOL)]
            for e in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False):
                if len(e.ids) <= longest:
                    self._pool.append(np.array(e.ids, dtype=np.int64))

    def _learned(self, ids: np.ndarray) -> np.ndarray:
        """Which tokens are targets: all but most of what a user or system says."""
        learned = np.ones(len(ids), dtype=bool)
        inside = False
        draws = self._rng.random(len(ids)) < USER_SHARE
        for i, token in enumerate(ids.tolist()):
            if token in self._opens:
                inside = True
            if inside:
                learned[i] = draws[i]
            if token == self._closes:
                inside = False
        return learned

    def _row(self, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids = np.full(length + 1, self._pad, dtype=np.int64)
        targets = np.full(length + 1, -1, dtype=np.int64)
        document = np.zeros(length + 1, dtype=np.int64)
        at = 0
        while True:
            self._refill(length)
            room = length + 1 - at
            fitting = next((i for i, d in enumerate(self._pool) if len(d) <= room), None)
            if fitting is None:
                return ids, targets, document
            doc = self._pool.pop(fitting)
            ids[at:at + len(doc)] = doc
            targets[at:at + len(doc)] = np.where(self._learned(doc), doc, -1)
            at += len(doc)
            document[at:] += 1

    def batch(self, rows: int, length: int) -> Batch:
        """The next `rows` rows of `length` positions."""
        ids, targets, document = map(np.stack, zip(*(self._row(length) for _ in range(rows))))
        return Batch(ids[:, :-1], targets[:, 1:], document[:, :-1])
