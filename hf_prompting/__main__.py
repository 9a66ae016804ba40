"""``python -m hf_prompting`` is ``hf-prompting``."""

from hf_prompting.cli import main

if __name__ == "__main__":
    main()
