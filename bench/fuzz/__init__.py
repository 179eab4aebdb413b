"""Feed damaged and arbitrary input to everything that decodes what others send (docs/reliability.md):

    python -m bench.fuzz [--minutes M] [--seed S] [TARGET...]

Each file but `__main__`, `mutate`, `rounds` and `viewer` is one target. Its `ready()` prepares it and yields its round:
a function of a seeded random generator that returns how many inputs it has tried, and raises when one of them is not
handled as promised. The same seed and number of a round give the same inputs.
"""
