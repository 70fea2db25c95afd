"""Runs componentize-py, and shows what Python says of the handler's code as Python would say it.

componentize-py fails with an AssertionError whose message is the interpreter's output, followed by the same once more and by a
backtrace of its own. Files are named by where they were mounted while the component was built, as /0/handler.py.
"""

import sys

import componentize_py


def said(problem, folders):
    text = str(problem).split("\n\nCaused by:")[0].split("\n\nStack backtrace:")[0].strip()
    for index, folder in enumerate(folders):
        text = text.replace(f'File "/{index}/', f'File "{folder.removesuffix("/.").rstrip("/")}/')
    for interface, mark in (("Handler", "@handler"), ("BatchHandler", "@batch_handler")):
        if f"has no attribute '{interface}'" in text:
            text += f"\nno function of the entry module is marked {mark}, which its world needs"
    return text


folders = [value for flag, value in zip(sys.argv, sys.argv[1:]) if flag == "-p"]
try:
    componentize_py.script()
except AssertionError as problem:
    sys.exit(said(problem, folders))
