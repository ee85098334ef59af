"""Tests of `lib.rf_regression`, module by module."""
