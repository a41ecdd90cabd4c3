"""The small world that the tiny model is trained on, and the code that trains it."""
