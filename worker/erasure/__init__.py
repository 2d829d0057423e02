"""Somebody is forgotten, everywhere, and it can be shown.

- ``plan``: what there is of a person, before anything is changed.
- ``forgetting``: the plan carried out, place by place.
- ``attendance``: which workers run, and what each has erased.
- ``own``: a worker's own part, in its memory and in its files.
- ``search``: whether the bytes are in any file.
- ``receipt``: what was removed where and when, signed.
"""
