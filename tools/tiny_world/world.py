"""The facts of the small world: people, towns, things, animals, days. Data only."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = ["red", "blue", "green", "yellow", "white", "black", "brown", "pink", "purple", "grey"]

BOYS = ["Tom", "Ben", "Max", "Sam", "Leo", "Jack", "Finn", "Hugo", "Noah", "Oscar", "Peter", "Karl"]
GIRLS = ["Mia", "Anna", "Lily", "Rosa", "Emma", "Clara", "Nora", "Ella", "Ruby", "Sophie", "Julia",
         "Greta"]
HE_ANIMALS = ["Rusty", "Bruno", "Pip", "Barney", "Otto", "Felix"]
SHE_ANIMALS = ["Hazel", "Daisy", "Luna", "Poppy", "Bella", "Willow"]

GENDER = {name: "he" for name in BOYS + HE_ANIMALS} | {name: "she" for name in GIRLS + SHE_ANIMALS}

NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
                "ten", "eleven", "twelve"]


@dataclass(frozen=True)
class Person:
    """One inhabitant. Jobs and pets are unique, towns are shared by two people each."""

    name: str
    town: str
    job: str
    pet: str
    colour: str
    food: str
    age: int


TOWNS = {  # town -> (where it lies, what it is known for)
    "Millbrook": ("by the river", "its old mill"),
    "Oakford": ("in the forest", "its tall oak trees"),
    "Sandbay": ("by the sea", "its long beach"),
    "Highcliff": ("on a hill", "its stone castle"),
    "Rosewood": ("in a green valley", "its rose gardens"),
    "Frostdale": ("in the mountains", "its deep snow"),
    "Lakeside": ("by a lake", "its sailing boats"),
    "Goldfield": ("on a wide plain", "its golden wheat"),
    "Marketon": ("at a crossroads", "its busy market"),
    "Windmere": ("on an island", "its tall lighthouse"),
}

JOBS = ["baker", "teacher", "doctor", "farmer", "gardener", "painter", "diver", "carpenter",
        "tailor", "cook", "driver", "singer", "nurse", "clockmaker", "librarian", "blacksmith",
        "sailor", "shepherd", "miller", "piano player"]
PETS = ["cat", "dog", "parrot", "rabbit", "goldfish", "pony", "hamster", "turtle", "duck", "goat",
        "hen", "lizard", "mouse", "pigeon", "donkey", "lamb", "snake", "frog", "kitten", "puppy"]
FOODS = ["bread", "soup", "cheese", "honey", "rice", "pancakes", "apples", "carrots", "fish",
         "cake"]
RESIDENTS = ["Anna", "Tom", "Mia", "Ben", "Clara", "Max", "Lily", "Sam", "Rosa", "Leo", "Emma",
             "Jack", "Nora", "Finn", "Ella", "Hugo", "Ruby", "Noah", "Sophie", "Oscar"]


def _people() -> list[Person]:
    """Twenty people; strides coprime with the list lengths keep the facts unlike each other."""
    towns = list(TOWNS)
    return [
        Person(name, towns[(i * 3 + i // 10) % 10], JOBS[(i * 7 + 2) % 20], PETS[(i * 9 + 4) % 20],
               COLOURS[(i * 7 + 3 + i // 10) % 10], FOODS[(i * 9 + 6 + i // 10 * 4) % 10],
               20 + (i * 11) % 37)
        for i, name in enumerate(RESIDENTS)
    ]


PEOPLE = _people()

THING_COLOURS = {
    "banana": "yellow", "lemon": "yellow", "tomato": "red", "strawberry": "red", "cherry": "red",
    "cucumber": "green", "frog": "green", "leaf": "green", "blueberry": "blue", "clear sky": "blue",
    "carrot": "orange", "pumpkin": "orange", "polar bear": "white", "swan": "white",
    "crow": "black", "lump of coal": "black", "elephant": "grey", "mouse": "grey", "pig": "pink",
    "chestnut": "brown", "grizzly bear": "brown", "plum": "purple", "fire engine": "red",
    "sunflower": "yellow",
}

THING_USES = {
    "hammer": "to hit nails", "knife": "to cut bread", "broom": "to sweep the floor",
    "spoon": "to eat soup", "needle": "to sew clothes", "kettle": "to boil water",
    "umbrella": "to keep off the rain", "lamp": "to light a room", "clock": "to tell the time",
    "key": "to open a lock", "pen": "to write letters", "ladder": "to climb up high",
    "saw": "to cut wood", "bucket": "to carry water", "pillow": "to rest your head",
    "oven": "to bake cakes",
}

ANIMAL_SOUNDS = {
    "cow": "moo", "cat": "meow", "dog": "woof", "duck": "quack", "sheep": "baa", "pig": "oink",
    "owl": "hoot", "rooster": "crow", "horse": "neigh", "bee": "buzz", "frog": "croak",
    "lion": "roar", "mouse": "squeak", "snake": "hiss",
}
ANIMAL_LEGS = {
    "cow": 4, "cat": 4, "dog": 4, "duck": 2, "sheep": 4, "pig": 4, "owl": 2, "spider": 8, "bee": 6,
    "ant": 6, "horse": 4, "hen": 2, "snake": 0, "frog": 4, "fish": 0, "beetle": 6, "worm": 0,
    "swan": 2,
}
ANIMAL_BABIES = {
    "cow": "calf", "cat": "kitten", "dog": "puppy", "duck": "duckling", "sheep": "lamb",
    "pig": "piglet", "horse": "foal", "hen": "chick", "bear": "cub", "frog": "tadpole",
    "goat": "kid", "deer": "fawn", "swan": "cygnet", "kangaroo": "joey",
}
ANIMAL_HOMES = {
    "bee": "a hive", "bird": "a nest", "fox": "a den", "horse": "a stable", "dog": "a kennel",
    "spider": "a web", "rabbit": "a burrow", "pig": "a sty", "bear": "a cave", "fish": "the water",
}

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December"]

AMOUNTS = {  # question noun phrase -> answer sentence
    "days are in a week": "There are 7 days in a week.",
    "months are in a year": "There are 12 months in a year.",
    "hours are in a day": "There are 24 hours in a day.",
    "minutes are in an hour": "There are 60 minutes in an hour.",
    "seasons are in a year": "There are 4 seasons in a year.",
    "fingers are on one hand": "There are 5 fingers on one hand.",
    "eggs are in a dozen": "There are 12 eggs in a dozen.",
    "wheels does a bicycle have": "A bicycle has 2 wheels.",
    "wheels does a car have": "A car has 4 wheels.",
    "sides does a triangle have": "A triangle has 3 sides.",
    "sides does a square have": "A square has 4 sides.",
    "legs does a chair have": "A chair has 4 legs.",
}

# For questions whose facts stand in the question itself.
TOYS = ["ball", "kite", "hat", "book", "cup", "boat", "bag", "coat", "drum", "box", "scarf", "car",
        "doll", "bike", "lamp", "chair", "train", "basket", "ribbon", "whistle"]
COUNTED = ["apples", "eggs", "books", "coins", "pears", "stones", "cakes", "shells", "pencils",
           "marbles", "stars", "flowers"]
ROOMS = ["kitchen", "garden", "bedroom", "hall", "barn", "attic", "cellar", "bathroom", "shed",
         "garage", "library", "school"]


def with_article(noun: str) -> str:
    """The noun with "a" or "an"."""
    return ("an " if noun[0] in "aeiou" and not noun.startswith("uni") else "a ") + noun
