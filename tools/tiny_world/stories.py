"""Writes stories from the grammar in plots.py, and reads a story back to see if it obeys it."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator

from . import plots as g
from . import world as w

ALL_NAMES = list(w.GENDER)
ALL_KINDS = sorted({k for kinds in g.PEOPLE_KINDS.values() for k in kinds} | set(g.ANIMAL_KINDS))
PRONOUNS = {"he": {"he": "he", "his": "his", "him": "him", "himself": "himself"},
            "she": {"he": "she", "his": "her", "him": "her", "himself": "herself"}}
MAX_STEPS = 20000  # of the reader; a text that needs more is called ungrammatical

Bindings = dict[str, str]


def _base_class(slot: str) -> str:
    return slot.rstrip("2") if slot.endswith("2") else slot


def _derived(slot: str, bound: Bindings) -> str | None:
    """The value of a pronoun slot, once the name it stands for is bound."""
    low = slot.lower()
    owner, form = ("F", low[1:]) if low in ("fhe", "fhis", "fhim") else ("H", low)
    if low == "him2":
        owner, form = "F", "him"
    if form not in PRONOUNS["he"]:
        return None
    if owner not in bound:
        return ""
    value = PRONOUNS[w.GENDER[bound[owner]]][form]
    return value.capitalize() if slot[0].isupper() else value


def _candidates(slot: str) -> list[str]:
    if slot in ("H", "F"):
        return ALL_NAMES
    if slot in ("kind", "fkind"):
        return ALL_KINDS
    return g.CLASSES[_base_class(slot)]


def _parts(template: str) -> list[str]:
    return re.split(r"(\{\w+\}|\[[^\]]*\])", template)


def _fill(template: str, bound: Bindings, rng: random.Random) -> str:
    out = []
    for part in _parts(template):
        if part.startswith("["):
            options = part[1:-1].split("|")
            if options == ["His", "Her"]:
                options = ["His" if w.GENDER[bound["H"]] == "he" else "Her"]
            out.append(rng.choice(options))
        elif part.startswith("{"):
            slot = part[1:-1]
            value = _derived(slot, bound)
            if value is None:
                if slot not in bound:
                    taken = {bound.get(_base_class(slot)), bound.get(slot + "2")}
                    bound[slot] = rng.choice([c for c in _candidates(slot) if c not in taken])
                value = bound[slot]
            out.append(value)
        else:
            out.append(part)
    return "".join(out)


def _cast(rng: random.Random, kind: str | None, name: str | None) -> Bindings:
    """Hero and friend: a child or an animal each, with a name that fits."""
    bound: Bindings = {}
    taken = set()
    for who, kind_slot, k, n in (("H", "kind", kind, name), ("F", "fkind", None, None)):
        if k is None and n is None:
            k = rng.choice(g.ANIMAL_KINDS) if rng.random() < 0.45 else rng.choice(
                ["boy", "girl", "boy", "girl", "boy", "girl", "man", "woman", "prince", "princess"])
        if k is None:
            animal = n in w.HE_ANIMALS + w.SHE_ANIMALS
            k = rng.choice(g.ANIMAL_KINDS if animal else g.PEOPLE_KINDS[w.GENDER[n]][:1])
        if n is None:
            pool = (w.HE_ANIMALS + w.SHE_ANIMALS if k in g.ANIMAL_KINDS
                    else w.BOYS if k in g.PEOPLE_KINDS["he"] else w.GIRLS)
            n = rng.choice([c for c in pool if c not in taken])
        taken.add(n)
        bound[who], bound[kind_slot] = n, k
    return bound


def write_story(rng: random.Random, kind: str | None = None, name: str | None = None) -> str:
    """One story; `kind` ("fox", "girl") or `name` fixes the hero."""
    bound = _cast(rng, kind, name)
    plot = rng.choice(list(g.PLOTS))
    beats: list[g.Beat] = [(1.0, g.OPENINGS), *g.PLOTS[plot], (1.0, g.LESSON), (0.5, g.LAST)]
    # A friend must be on stage before a template may speak of F.
    sentences = []
    for probability, templates in beats:
        if rng.random() > probability:
            continue
        usable = [t for t in templates if "F" in bound or "{F}" not in t]
        sentences.append(_fill(rng.choice(usable), bound, rng))
    return " ".join(sentences)


@functools.lru_cache(maxsize=None)
def _compiled(template: str, bound: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    """A pattern for one template: bound slots are literal, the others named groups."""
    known = dict(bound)
    seen: set[str] = set()
    out = []
    for part in _parts(template):
        if part.startswith("["):
            out.append("(?:" + "|".join(map(re.escape, part[1:-1].split("|"))) + ")")
        elif part.startswith("{"):
            slot = part[1:-1]
            value = _derived(slot, known)
            if value:
                out.append(re.escape(value))
            elif value == "":  # pronoun before its name: checked by whoever binds the name
                out.append(r"\w+")
            elif slot in known:
                out.append(re.escape(known[slot]))
            elif slot in seen:
                out.append(f"(?P={slot})")
            else:
                seen.add(slot)
                choices = sorted(_candidates(slot), key=len, reverse=True)
                out.append(f"(?P<{slot}>" + "|".join(map(re.escape, choices)) + ")")
        else:
            out.append(re.escape(part))
    return re.compile("".join(out) + r"(?: |$)")


def _slots(template: str) -> set[str]:
    return {p[1:-1] for p in _parts(template) if p.startswith("{")}


def _read(text: str, at: int, beats: list[g.Beat], index: int, bound: Bindings,
          steps: list[int]) -> Iterator[Bindings]:
    """Every way in which text[at:] is the beats from `index` on."""
    steps[0] += 1
    if steps[0] > MAX_STEPS:
        return
    if index == len(beats):
        if at >= len(text):
            yield bound
        return
    probability, templates = beats[index]
    for template in templates:
        used = _slots(template)
        relevant = tuple(sorted((k, v) for k, v in bound.items() if k in used or k in ("H", "F")))
        match = _compiled(template, relevant).match(text, at)
        if match:
            yield from _read(text, match.end(), beats, index + 1, bound | match.groupdict(), steps)
    if probability < 1.0:
        yield from _read(text, at, beats, index + 1, bound, steps)


def parse_story(text: str) -> str | None:
    """The plot whose grammar derives the whole text, names and pronouns agreeing; else None."""
    for plot, middle in g.PLOTS.items():
        beats: list[g.Beat] = [(1.0, g.OPENINGS), *middle, (1.0, g.LESSON), (0.5, g.LAST)]
        for bound in _read(text.strip(), 0, beats, 0, {}, [0]):
            if bound.get("H") != bound.get("F"):
                return plot
    return None


def split_sentences(text: str) -> list[str]:
    """The sentences of a story; a closing quote belongs to the sentence it ends."""
    return [s for s in re.split(r'(?<=[.!?])\s+|(?<=[.!?]")\s+', text.strip()) if s]


@functools.lru_cache(maxsize=1)
def _sentence_patterns() -> list[re.Pattern[str]]:
    patterns = []
    templates = [t for plot in g.PLOTS.values() for _, ts in plot for t in ts]
    for template in dict.fromkeys(templates + g.OPENINGS + g.LESSON + g.LAST):
        for sentence in split_sentences(template):
            patterns.append(_compiled(sentence, ()))
    return patterns


def known_sentence(sentence: str) -> bool:
    """True if some template of the grammar derives this sentence, whatever stands around it."""
    return any(p.fullmatch(sentence) for p in _sentence_patterns())
