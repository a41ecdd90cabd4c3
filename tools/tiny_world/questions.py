"""Questions about the small world, with their answers, and the split into training and held-out.

A question belongs to a key: the fact and the wording (for questions that bring their own facts,
the whole text). A hash of the key decides on which side it falls, so that a held-out question
never occurs in training, in no spelling and in no chat.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from . import world as w

HELD_OUT_PERCENT = 12


@dataclass(frozen=True)
class Qa:
    """One question and its answer; `person` is whom a follow-up's pronoun would mean."""

    category: str
    key: str
    question: str
    answer: str
    person: str = ""

    @property
    def held_out(self) -> bool:
        return zlib.crc32(self.key.encode()) % 100 < HELD_OUT_PERCENT


def _expand(category: str, fact: str, wordings: list[str], answer: str, person: str = "",
            **slots: object) -> list[Qa]:
    """Every wording of one fact."""
    return [Qa(category, f"{fact}|{wording}", wording.format(**slots), answer, person)
            for wording in wordings]


PERSON_WORDINGS: dict[str, list[str]] = {
    "town": ["Where does {n} live?", "In which town does {n} live?", "What town does {n} live in?",
             "Tell me where {n} lives.", "Can you tell me where {n} lives?",
             "Do you know where {n} lives?", "Where is {n}'s home?", "Which town is {n} from?"],
    "job": ["What is {n}'s job?", "What does {n} do for a living?", "What job does {n} have?",
            "Tell me what {n}'s job is.", "Do you know what job {n} has?", "What is the job of {n}?",
            "What work does {n} do?", "Can you tell me {n}'s job?"],
    "pet": ["What pet does {n} have?", "Which animal does {n} keep?", "What kind of pet does {n} have?",
            "Tell me what pet {n} has.", "What is {n}'s pet?", "Do you know what pet {n} has?",
            "What animal lives with {n}?", "Can you tell me which pet {n} has?"],
    "colour": ["What is {n}'s favourite colour?", "Which colour does {n} like best?",
               "What colour does {n} like most?", "Tell me {n}'s favourite colour.",
               "Do you know {n}'s favourite colour?", "What is the favourite colour of {n}?",
               "Which colour is {n}'s favourite?", "Can you tell me what colour {n} likes best?"],
    "food": ["What does {n} like to eat?", "What is {n}'s favourite food?", "What food does {n} like best?",
             "Tell me what {n} likes to eat.", "Do you know what {n} likes to eat?",
             "What is the favourite food of {n}?", "Which food is {n}'s favourite?",
             "Can you tell me {n}'s favourite food?"],
    "age": ["How old is {n}?", "What is {n}'s age?", "What age is {n}?", "Tell me how old {n} is.",
            "Do you know how old {n} is?", "Can you tell me {n}'s age?", "How many years old is {n}?",
            "What is the age of {n}?"],
}
FOLLOW_UPS: dict[str, list[str]] = {
    "town": ["And where does {he} live?", "Where does {he} live?", "In which town does {he} live?"],
    "job": ["And what is {his} job?", "What is {his} job?", "What does {he} do for a living?"],
    "pet": ["And what pet does {he} have?", "What pet does {he} have?", "What is {his} pet?"],
    "colour": ["And what is {his} favourite colour?", "What is {his} favourite colour?",
               "Which colour does {he} like best?"],
    "food": ["And what does {he} like to eat?", "What does {he} like to eat?",
             "What is {his} favourite food?"],
    "age": ["And how old is {he}?", "How old is {he}?", "What is {his} age?"],
}


def person_answer(person: w.Person, relation: str) -> str:
    """The sentence that states one fact about a person."""
    return {
        "town": f"{person.name} lives in {person.town}.",
        "job": f"{person.name} is a {person.job}.",
        "pet": f"{person.name} has a {person.pet}.",
        "colour": f"{person.name}'s favourite colour is {person.colour}.",
        "food": f"{person.name} likes to eat {person.food}.",
        "age": f"{person.name} is {person.age} years old.",
    }[relation]


def _people() -> list[Qa]:
    out = []
    for p in w.PEOPLE:
        for relation, wordings in PERSON_WORDINGS.items():
            out += _expand("people", f"{p.name}.{relation}", wordings, person_answer(p, relation),
                           p.name, n=p.name)
        out += _expand("people", f"who.{p.job}",
                       ["Who is the {j}?", "Who works as a {j}?", "Tell me who the {j} is.",
                        "Do you know who the {j} is?", "What is the name of the {j}?"],
                       f"{p.name} is the {p.job}.", p.name, j=p.job)
        out += _expand("people", f"who.{p.pet}",
                       ["Who has a {k}?", "Who keeps a {k}?", "Who is the owner of the {k}?",
                        "Tell me who has a {k}.", "Do you know who has a {k}?"],
                       f"{p.name} has a {p.pet}.", p.name, k=p.pet)
    return out


def _towns() -> list[Qa]:
    out = []
    for town, (where, known) in w.TOWNS.items():
        out += _expand("places", f"{town}.where",
                       ["Where is {t}?", "Where does {t} lie?", "Tell me where {t} is.",
                        "Do you know where {t} is?", "Can you tell me where {t} lies?",
                        "Where can I find {t}?"], f"{town} is {where}.", t=town)
        out += _expand("places", f"{town}.known",
                       ["What is {t} known for?", "What is {t} famous for?",
                        "Why is {t} well known?", "Tell me what {t} is known for.",
                        "Do you know what {t} is known for?", "What can people see in {t}?"],
                       f"{town} is known for {known}.", t=town)
        out += _expand("places", f"which.{where}",
                       ["Which town is {x}?", "Which town lies {x}?", "What town is {x}?",
                        "Tell me which town is {x}.", "What is the name of the town {x}?"],
                       f"{town} is {where}.", x=where)
        first, second = [p.name for p in w.PEOPLE if p.town == town]
        out += _expand("places", f"residents.{town}",
                       ["Who lives in {t}?", "Who are the people of {t}?",
                        "Tell me who lives in {t}.", "Which people live in {t}?",
                        "Do you know who lives in {t}?"], f"{first} and {second} live in {town}.",
                       t=town)
    return out


def _things() -> list[Qa]:
    out = []
    for thing, colour in w.THING_COLOURS.items():
        a = w.with_article(thing)
        out += _expand("colours", thing,
                       ["What colour is {a}?", "Which colour is {a}?", "What is the colour of {a}?",
                        "What colour does {a} have?", "Tell me the colour of {a}.",
                        "Do you know what colour {a} is?", "Can you tell me what colour {a} is?"],
                       f"{a.capitalize()} is {colour}.", a=a)
    for thing, use in w.THING_USES.items():
        a = w.with_article(thing)
        out += _expand("objects", thing,
                       ["What is {a} for?", "What do you do with {a}?", "Why do people need {a}?",
                        "What is {a} used for?", "Tell me what {a} is for.",
                        "Do you know what {a} is for?", "What can I do with {a}?"],
                       f"People use {a} {use}.", a=a)
    return out


def _animals() -> list[Qa]:
    out = []
    for animal, sound in w.ANIMAL_SOUNDS.items():
        a = w.with_article(animal)
        out += _expand("animals", f"{animal}.sound",
                       ["What does {a} say?", "What sound does {a} make?", "What noise does {a} make?",
                        "Tell me what {a} says.", "Which sound does {a} make?"],
                       f"{a.capitalize()} says {sound}.", a=a)
    for animal, legs in w.ANIMAL_LEGS.items():
        a = w.with_article(animal)
        out += _expand("animals", f"{animal}.legs",
                       ["How many legs does {a} have?", "How many legs has {a}?",
                        "Tell me how many legs {a} has.", "Do you know how many legs {a} has?",
                        "What number of legs does {a} have?"],
                       f"{a.capitalize()} has {legs or 'no'} legs.", a=a)
    for animal, baby in w.ANIMAL_BABIES.items():
        a = w.with_article(animal)
        out += _expand("animals", f"{animal}.baby",
                       ["What is a baby {n} called?", "What do you call a baby {n}?",
                        "What is the name of a baby {n}?", "Tell me what a baby {n} is called.",
                        "What do people call the baby of {a}?"],
                       f"A baby {animal} is called {w.with_article(baby)}.", n=animal, a=a)
    for animal, home in w.ANIMAL_HOMES.items():
        a = w.with_article(animal)
        out += _expand("animals", f"{animal}.home",
                       ["Where does {a} live?", "Where is the home of {a}?",
                        "What is the home of {a}?", "Tell me where {a} lives.",
                        "In what kind of home does {a} live?"],
                       f"{a.capitalize()} lives in {home}.", a=a)
    return out


def _calendar() -> list[Qa]:
    out = []
    for kind, names in (("day", w.DAYS), ("month", w.MONTHS)):
        for i, name in enumerate(names):
            after, before = names[(i + 1) % len(names)], names[i - 1]
            out += _expand("calendar", f"after.{name}",
                           ["What {k} comes after {n}?", "Which {k} comes after {n}?",
                            "Which {k} follows {n}?", "What is the {k} after {n}?",
                            "Tell me the {k} after {n}."],
                           f"{after} comes after {name}.", k=kind, n=name)
            out += _expand("calendar", f"before.{name}",
                           ["What {k} comes before {n}?", "Which {k} comes before {n}?",
                            "What is the {k} before {n}?", "Tell me the {k} before {n}."],
                           f"{before} comes before {name}.", k=kind, n=name)
    for noun, answer in w.AMOUNTS.items():
        out += _expand("calendar" if "There" in answer else "objects", f"amount.{noun}",
                       ["How many {x}?", "Tell me how many {x}.", "Do you know how many {x}?",
                        "Can you tell me how many {x}?", "Please tell me how many {x}.",
                        "I want to know how many {x}."], answer, x=noun)
    return out


def _numbers() -> list[Qa]:
    out = []
    for a in range(13):
        for b in range(13):
            out += _expand("sums", f"{a}+{b}",
                           ["What is {a} plus {b}?", "What is {a} + {b}?", "How much is {a} plus {b}?",
                            "Add {a} and {b}.", "{a} + {b} = ?", "What do you get if you add {a} and {b}?",
                            "What is the sum of {a} and {b}?", "Can you add {a} and {b}?"],
                           f"{a} plus {b} is {a + b}.", a=a, b=b)
            out += _expand("sums", f"words.{a}+{b}",
                           ["What is {a} plus {b}?", "How much is {a} plus {b}?", "Add {a} and {b}."],
                           f"{w.NUMBER_WORDS[a].capitalize()} plus {w.NUMBER_WORDS[b]} is {a + b}.",
                           a=w.NUMBER_WORDS[a], b=w.NUMBER_WORDS[b])
            if b <= a:
                out += _expand("sums", f"{a}-{b}",
                               ["What is {a} minus {b}?", "What is {a} - {b}?", "Take {b} from {a}.",
                                "How much is {a} minus {b}?", "{a} - {b} = ?",
                                "What is left if you take {b} from {a}?"],
                               f"{a} minus {b} is {a - b}.", a=a, b=b)
    for a in range(21):
        for b in range(21):
            if a != b:
                out += _expand("numbers", f"{a}>{b}",
                               ["Which is bigger, {a} or {b}?", "Which number is bigger, {a} or {b}?",
                                "Is {a} or {b} the bigger number?"],
                               f"{max(a, b)} is bigger than {min(a, b)}.", a=a, b=b)
            if a < b <= a + 10:
                out += _expand("counting", f"{a}..{b}",
                               ["Count from {a} to {b}.", "Please count from {a} to {b}.",
                                "Can you count from {a} to {b}?", "Say the numbers from {a} to {b}."],
                               ", ".join(map(str, range(a, b + 1))) + ".", a=a, b=b)
    for a in range(1, 31):
        out += _expand("counting", f"after.{a}",
                       ["What number comes after {a}?", "Which number comes after {a}?",
                        "What comes after {a}?", "Which number follows {a}?", "Tell me the number after {a}."],
                       f"{a + 1} comes after {a}.", a=a)
        out += _expand("counting", f"before.{a}",
                       ["What number comes before {a}?", "Which number comes before {a}?",
                        "What comes before {a}?", "Tell me the number before {a}."],
                       f"{a - 1} comes before {a}.", a=a)
    return out


def fixed_questions() -> dict[str, list[Qa]]:
    """Every question about the world's own facts, by category."""
    by_category: dict[str, list[Qa]] = {}
    for qa in _people() + _towns() + _things() + _animals() + _calendar() + _numbers():
        by_category.setdefault(qa.category, []).append(qa)
    return by_category


def story_facts_question(rng: random.Random) -> Qa:
    """A question whose facts are told just before it: colours, owners, rooms or counts."""
    names = rng.sample(w.BOYS + w.GIRLS, 3)
    toys = rng.sample(w.TOYS, 3)
    colours = rng.sample(w.COLOURS, 3)
    kind = rng.choice(["owner", "owner", "room", "count"])
    n = rng.choice([2, 2, 3])
    pick = rng.randrange(n)
    name, toy, colour = names[pick], toys[pick], colours[pick]
    if kind == "owner":
        facts = " ".join(f"{names[i]} has a {colours[i]} {toys[i]}." for i in range(n))
        question, answer = rng.choice([
            (f"What colour is the {toy}?", f"The {toy} is {colour}."),
            (f"Which colour is the {toy}?", f"The {toy} is {colour}."),
            (f"What colour is {name}'s {toy}?", f"The {toy} is {colour}."),
            (f"Who has the {toy}?", f"{name} has the {toy}."),
            (f"Who has the {colour} {toy}?", f"{name} has the {toy}."),
            (f"What does {name} have?", f"{name} has a {colour} {toy}."),
            (f"What has {name} got?", f"{name} has a {colour} {toy}."),
        ])
    elif kind == "room":
        rooms = rng.sample(w.ROOMS, 3)
        verb = rng.choice(["The {} is in the {}.", "The {} lies in the {}."])
        facts = " ".join(verb.format(toys[i], rooms[i]) for i in range(n))
        question, answer = rng.choice([
            (f"Where is the {toy}?", f"The {toy} is in the {rooms[pick]}."),
            (f"In which room is the {toy}?", f"The {toy} is in the {rooms[pick]}."),
            (f"What is in the {rooms[pick]}?", f"The {toy} is in the {rooms[pick]}."),
        ])
    else:
        have, more = rng.randint(1, 10), rng.randint(1, 9)
        noun = rng.choice(w.COUNTED)
        he = w.GENDER[name].capitalize()
        if rng.random() < 0.5 or more > have:
            facts = rng.choice([f"{name} has {have} {noun}. {he} gets {more} more.",
                                f"{name} has {have} {noun} and finds {more} more."])
            total = have + more
        else:
            facts = rng.choice([f"{name} has {have} {noun}. {he} loses {more} of them.",
                                f"{name} has {have} {noun} and gives {more} away."])
            total = have - more
        question = f"How many {noun} does {name} have" + rng.choice([" now?", "?"])
        answer = f"{name} has {total} {noun if total != 1 else noun[:-1]}."
    text = f"{facts} {question}"
    return Qa("told facts", text, text, answer)


def yes_no_question(rng: random.Random) -> Qa:
    """Does a person have this town, job or pet? A wrong guess is put right in the answer."""
    p = rng.choice(w.PEOPLE)
    other = p if rng.random() < 0.5 else rng.choice(w.PEOPLE)
    relation, wording = rng.choice([
        ("town", f"Does {p.name} live in {other.town}?"), ("job", f"Is {p.name} a {other.job}?"),
        ("pet", f"Does {p.name} have a {other.pet}?"),
        ("food", f"Does {p.name} like to eat {other.food}?"),
    ])
    right = getattr(p, relation) == getattr(other, relation)
    return Qa("yes or no", wording, wording,
              ("Yes, " if right else "No, ") + person_answer(p, relation), p.name)


def follow_up(person_name: str, asked: str, rng: random.Random) -> Qa:
    """A second question about the person just spoken of, by pronoun."""
    person = next(p for p in w.PEOPLE if p.name == person_name)
    relation = rng.choice(list(FOLLOW_UPS))
    he = w.GENDER[person_name]
    wording = rng.choice(FOLLOW_UPS[relation])
    text = wording.format(he=he, his="his" if he == "he" else "her")
    return Qa("follow-ups", f"{person_name}|{asked}|{wording}", text,
              person_answer(person, relation), person_name)


def told_name(rng: random.Random) -> tuple[Qa, Callable[[random.Random], Qa]]:
    """A user who says a name, colour or pet, and the later question that asks for it back."""
    kind = rng.choice(["name", "colour", "pet"])
    value = rng.choice({"name": w.BOYS + w.GIRLS, "colour": w.COLOURS, "pet": w.PETS}[kind])
    said, reply, asked, answer = {
        "name": (["My name is {v}.", "I am {v}.", "Hello, my name is {v}.", "Hi, I am {v}."],
                 "Hello, {v}. It is nice to meet you.",
                 ["What is my name?", "Do you know my name?", "Who am I?", "Tell me my name."],
                 "Your name is {v}."),
        "colour": (["My favourite colour is {v}.", "I like {v} best of all colours."],
                   "{V} is a very nice colour.",
                   ["What is my favourite colour?", "Which colour do I like best?"],
                   "Your favourite colour is {v}."),
        "pet": (["I have a {v}.", "My pet is a {v}."], "A {v} is a very nice pet.",
                ["What pet do I have?", "What is my pet?"], "You have a {v}."),
    }[kind]
    first = rng.choice(said).format(v=value)
    tell = Qa("memory", first, first, reply.format(v=value, V=value.capitalize()))

    def ask(r: random.Random) -> Qa:
        wording = r.choice(asked)
        return Qa("memory", f"{first}|{wording}", wording, answer.format(v=value))

    return tell, ask


SMALL_TALK: list[tuple[list[str], str]] = [
    (["Hello!", "Hello.", "Hi!", "Hi.", "Good morning.", "Hello there!"],
     "Hello. What would you like to know?"),
    (["How are you?", "How are you today?"], "I am very well, thank you."),
    (["Who are you?", "What are you?", "What is your name?", "Tell me about yourself."],
     "I am a very small language model. I know a small world and I can tell stories."),
    (["What can you do?", "What do you know?", "Help!", "Help me."],
     "I can tell short stories and answer questions about a small world."),
    (["Thank you.", "Thanks!", "Thank you very much!", "Thanks a lot."], "You are welcome."),
    (["Goodbye.", "Bye!", "Goodbye!", "See you later."], "Goodbye. Have a nice day."),
]
UNKNOWN = ["What is the meaning of life?", "Who is the president?", "What is the weather like today?",
           "How far away is the moon?", "Write a poem.", "What is the capital of France?",
           "Who wrote this book?", "What time is it?", "How do I cook pasta?", "Write some code.",
           "What is the news today?", "Who won the game?", "Translate this text.",
           "How tall is the tower?", "Why is the sky blue?", "What should I wear?",
           "Who invented the train?", "How much does a car cost?", "What is love?",
           "Can you drive a car?"]
UNKNOWN_ANSWER = "I do not know that. I only know a small world."


def small_talk(rng: random.Random) -> Qa:
    """Greetings, thanks, what the model is, and what it cannot know."""
    if rng.random() < 0.35:
        text, answer = rng.choice(UNKNOWN), UNKNOWN_ANSWER
    else:
        texts, answer = rng.choice(SMALL_TALK)
        text = rng.choice(texts)
    return Qa("small talk", f"small talk|{text}", text, answer)
