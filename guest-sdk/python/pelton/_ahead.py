"""Imports what Python would import on demand, at the first use of something else.

An instance has no files, so all there ever is must be imported while the component is built. A handler sees to its own
imports, by having them at the top of its modules; of these it cannot know.
"""

from importlib import import_module

ON_DEMAND = (
    "_strptime",  # datetime.strptime
    "traceback",  # what the interpreter prints of an exception
    # Codecs that are asked for by their name.
    "encodings.ascii",
    "encodings.cp1252",
    "encodings.latin_1",
    "encodings.utf_8_sig",
    "encodings.utf_16",
)

for name in ON_DEMAND:
    import_module(name)
