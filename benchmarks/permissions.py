"""Permissions of files that are written under a temporary name: those that the user's umask asks for."""

from __future__ import annotations

import os

UMASK = os.umask(0o077)
"""The process's umask, read once: reading means setting, which other threads would notice."""
os.umask(UMASK)
