"""Tests of `lib.temperature_scaling`, module by module."""
