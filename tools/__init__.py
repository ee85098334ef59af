"""What `make` runs: set-up, execution, staging, the build, the audit. Not part of the installable package."""
