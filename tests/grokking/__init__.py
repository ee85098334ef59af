"""Tests of `lib.grokking`."""
