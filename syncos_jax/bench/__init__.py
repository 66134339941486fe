"""Measuring: what ``syncos bench`` runs, and what the scripts in ``benchmarks/`` share."""
