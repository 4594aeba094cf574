"""How the embedded model is made: texts, speech, codes, language model, evaluation, export.

Nothing here is part of the server; the commands are listed in ``training/README.md``.
"""
