"""A page in the browser to try a tuned prompt: ``hf-prompting demo FOLDER``, and the same page as a Space.

Only ``page.py``, ``look.py`` and ``serve.py`` know Gradio, which comes with ``pip install "hf_prompting[demo]"``.
"""
