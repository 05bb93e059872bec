"""Emoji drawn by three artists: data, and the script that builds it."""
