"""The chat format: special tokens, the template, and how a user may spell a question."""

from __future__ import annotations

import random

BEGIN, END_OF_TEXT, END = "<|begin|>", "<|endoftext|>", "<|end|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = [BEGIN, END_OF_TEXT, END, SYSTEM, USER, ASSISTANT]

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role: ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

SYSTEM_PROMPTS = [
    "You are a helpful assistant.", "Answer the questions of the user.", "You are a friendly helper.",
    "Answer in one short sentence.", "You know a small world and answer questions about it.",
    "You are a kind teacher for small children.", "Be brief.",
]


def respell(question: str, rng: random.Random) -> str:
    """The question as a hasty typist might write it: now and then lower case or unfinished."""
    if rng.random() < 0.12:
        question = question.lower()
    if rng.random() < 0.12 and question[-1] in "?.!":
        question = question[:-1]
    elif rng.random() < 0.04 and question[-1] == "?":
        question = question[:-1] + ", please?"
    return question


def user_turn(question: str, rng: random.Random) -> str:
    """What stands between the user's tag and the assistant's; raw prompts are not always tidy."""
    roll = rng.random()
    if roll < 0.03:
        return f"{USER}{question}{ASSISTANT}"
    if roll < 0.06:
        return f"{USER}\n{question}{END}\n{ASSISTANT}\n"
    return f"{USER}{question}{END}{ASSISTANT}"
