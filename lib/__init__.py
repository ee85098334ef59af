"""Executable theory: one subpackage a chapter (`lib.rf_regression`), and the rooms that the chapters share.

Importing `lib` loads nothing else: torch comes in with the first subpackage that is used.
"""

__version__ = "0.1.0"
