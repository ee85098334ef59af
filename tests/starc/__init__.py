"""Tests of `lib.starc`, module by module."""
