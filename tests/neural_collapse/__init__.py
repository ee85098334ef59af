"""Tests of `lib.neural_collapse`, module by module."""
