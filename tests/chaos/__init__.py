"""Faults, inflicted on a real service at random moments."""
