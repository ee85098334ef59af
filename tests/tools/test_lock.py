"""What `make lock` writes down."""

from __future__ import annotations

from pathlib import Path

from tools import lock


def test_pins_are_sorted_and_leave_out_what_belongs_to_a_platform() -> None:
    frozen = "zipp==4\ntorch==2.13.0+cpu\nPillow==13\nnvidia-cublas==1\nattrs==26\nsetuptools==84\npip==23\n-e lib\n"
    assert lock.pins(frozen) == lock.HEAD + "attrs==26\nPillow==13\nzipp==4\n"


def test_pins_keep_packages_whose_names_only_begin_alike() -> None:
    assert "torchvision==1" in lock.pins("torchvision==1\n")


def test_the_new_resolution_does_not_see_the_old_pins(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-c constraints.txt\nnumpy==2\n")
    (tmp_path / "requirements-test.txt").write_text("-r requirements.txt\npytest\n")
    (tmp_path / "copy").mkdir()
    assert lock.unconstrained(tmp_path, tmp_path / "copy").read_text() == "-r requirements.txt\npytest"
    assert (tmp_path / "copy" / "requirements.txt").read_text() == "numpy==2"
