"""The params file as typed values: one section per stage, nothing unknown, nothing defaulted.

Every field stands in the params file, because DVC sees the file and not the defaults of a class:
a default that changed in code would leave stale outputs behind. To add a setting, add the field to
its section here and the value to ``params.yaml`` and to every file in ``profiles/``.

A section is called as its stage with underscores, except where pydantic owns the name:
``validate`` reads ``validation`` and ``register`` reads ``registration``. ``file.py`` has the whole
of them, and reads and changes the file.
"""
