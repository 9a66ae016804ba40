"""Contenders that take no time; run by another process, so they import nothing of ours."""

from __future__ import annotations

import sys


def counting(settings):
    state = {"rounds": 0}

    def one_round():
        state["rounds"] += 1
        print("whatever a library prints")
        return {"rounds": state["rounds"], "loss": settings["loss"]}

    return one_round


def holding(settings):
    def one_round():
        held = bytearray(settings["bytes"])
        held[::4096] = b"x" * len(held[::4096])
        return {}

    return one_round


def broken(settings):
    print("no such library", file=sys.stderr)
    raise ImportError("old_library")


def endless(settings):
    while True:
        pass
