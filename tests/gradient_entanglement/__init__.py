"""Tests of `lib.gradient_entanglement`."""
