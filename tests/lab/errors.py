"""What can go wrong in the lab, as two exceptions.

Apart from the library's own error tree on purpose: a fault of the lab must never be caught by a test
that expects a fault of the library.
"""

from __future__ import annotations

__all__ = ["LabError", "LabUnavailable"]


class LabError(RuntimeError):
    """The lab itself did not do what it was asked: the text holds the command and its answer."""


class LabUnavailable(LabError):  # noqa: N818 - it is a state of the machine rather than a mistake
    """This machine cannot run a lab, and why."""
