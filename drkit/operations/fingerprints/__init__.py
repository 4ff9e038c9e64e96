"""Fingerprints: what a cluster held at a moment, to compare a restored one with."""
