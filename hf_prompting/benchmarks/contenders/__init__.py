"""What the contenders of ``hf-prompting bench prompt`` do, each function in a process of its own.

Every function is given plain settings, prepares, and returns what does one round.
"""
