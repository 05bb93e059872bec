"""Thin adapters: each turns one part of `attune` into a Jina Executor. No domain logic lives here.

No module here says `from __future__ import annotations`: Jina reads the schemas of an endpoint from its live
annotations, and string ones silently cost it the schema.
"""
