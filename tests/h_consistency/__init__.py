"""Tests of `lib.h_consistency`."""
