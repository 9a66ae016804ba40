"""The command line ``hf-prompting``."""

from hf_prompting.cli.app import app, main

__all__ = ["app", "main"]
