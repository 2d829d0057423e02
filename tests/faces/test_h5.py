"""Weights that were made to harm are refused in one line; whatever is wrong with a file, the error is the project's."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.memory import measured_python
from worker.errors import ModelError
from worker.faces.networks.h5 import read_h5

READ = """
import sys
from pathlib import Path
from worker.errors import ModelError
from worker.faces.networks.h5 import read_h5
try:
    print(len(read_h5(Path(sys.argv[1]))))
except ModelError as error:
    print(error)
"""


def weights(path: Path, add: Callable[[h5py.Group], None] = lambda _: None, **kernel: Any) -> Path:
    """A file with one layer ``dense``; ``kernel`` is how its array is made."""
    with h5py.File(path, "w") as file:
        group = file.create_group("dense")
        names = [b"dense/kernel:0"]
        if kernel:
            group.create_dataset("dense/kernel:0", **kernel)
        else:
            group["dense/kernel:0"] = np.arange(6, dtype=np.float32).reshape(2, 3)
        group.attrs["weight_names"] = names
        file.attrs["layer_names"] = [b"dense"]
        add(group)
    return path


def test_ordinary_weights_are_read(tmp_path: Path) -> None:
    assert read_h5(weights(tmp_path / "w.h5"))["dense"]["kernel"].tolist() == [[0, 1, 2], [3, 4, 5]]
    packed: dict[str, Any] = {"data": np.zeros((100, 100), np.float32), "compression": "gzip"}
    assert read_h5(weights(tmp_path / "w.h5", **packed))["dense"]["kernel"].shape == (100, 100)
    random: dict[str, Any] = {"data": np.random.default_rng(0).normal(size=(1000, 900)), "compression": "gzip"}
    assert read_h5(weights(tmp_path / "w.h5", **random))["dense"]["kernel"].dtype == np.float32


def link_to_file(group: h5py.Group) -> None:
    del group["dense/kernel:0"]
    group["dense/kernel:0"] = h5py.ExternalLink("secret.h5", "/x")


def link_in_a_corner(group: h5py.Group) -> None:
    group.create_group("a/b")["c"] = h5py.ExternalLink("secret.h5", "/x")


def virtual_array(group: h5py.Group) -> None:
    del group["dense/kernel:0"]
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource("secret.h5", "x", shape=(4,))
    group.create_virtual_dataset("dense/kernel:0", layout)


def array_of_text(group: h5py.Group) -> None:
    del group["dense/kernel:0"]
    group["dense/kernel:0"] = [b"some", b"text"]


def group_for_an_array(group: h5py.Group) -> None:
    del group["dense/kernel:0"]
    group.create_group("dense/kernel:0")


def array_for_a_layer(group: h5py.Group) -> None:
    group.file["other"] = np.zeros(3)
    group.file.attrs["layer_names"] = [b"other"]


def names_of_bad_text(group: h5py.Group) -> None:
    group.attrs["weight_names"] = np.array([b"\xff\xfe"])


def too_many_names(group: h5py.Group) -> None:
    group.attrs["weight_names"] = np.full(10_001, b"x", "S1")


def names_without_a_list(group: h5py.Group) -> None:
    group.attrs["weight_names"] = 7


def link_in_a_circle(group: h5py.Group) -> None:
    del group["dense/kernel:0"]
    group["dense/kernel:0"] = h5py.SoftLink("/dense/dense/kernel:0")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (link_to_file, "link to another file"),
        (link_in_a_corner, "link to another file"),
        (virtual_array, "lies in other files"),
        (array_of_text, "no array of numbers"),
        (group_for_an_array, "no array of numbers"),
        (array_for_a_layer, "not a Keras H5 weights file"),
        (names_of_bad_text, "not a Keras H5 weights file"),
        (too_many_names, "too many names"),
        (names_without_a_list, "no"),
        (link_in_a_circle, "not a Keras H5 weights file"),
    ],
)
def test_everything_else_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[h5py.Group], None], says: str
) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.arange(4, dtype=np.float32)
    with pytest.raises(ModelError, match=says) as caught:
        read_h5(weights(tmp_path / "w.h5", change))
    assert str(tmp_path / "w.h5") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_bytes_of_another_file_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret bytes 123")
    path = weights(tmp_path / "w.h5", shape=(4,), dtype="f4", external=[(str(tmp_path / "secret"), 0, 16)])
    with pytest.raises(ModelError, match="lies in other files"):
        read_h5(path)


@pytest.mark.parametrize(
    "kernel",
    [
        {"shape": (1 << 31,), "dtype": "f4", "chunks": (1 << 20,), "compression": "gzip"},
        {"shape": (1 << 31,), "dtype": "f4"},
        {"shape": (4,), "maxshape": (None,), "dtype": "f4", "chunks": (1 << 28,), "compression": "gzip"},
        {"data": np.zeros(50_000_000, np.float32), "compression": "gzip", "compression_opts": 9},
        {"shape": (1 << 29,), "dtype": "i1", "chunks": (1 << 20,), "compression": "gzip"},
    ],
    ids=["empty chunks", "never written", "one huge chunk", "zeros", "bytes"],
)
def test_a_small_file_takes_little_memory(tmp_path: Path, kernel: dict[str, Any]) -> None:
    path = weights(tmp_path / "w.h5", **kernel)
    assert path.stat().st_size < 500_000
    ended = measured_python(READ, path)
    assert "claims far more than the file holds" in ended.output
    assert ended.peak_mb < 150


def test_an_array_that_is_named_often_counts_each_time(tmp_path: Path) -> None:
    def often(group: h5py.Group) -> None:
        group.attrs["weight_names"] = [b"dense/kernel:0"] * 1500

    path = weights(tmp_path / "w.h5", often, data=np.random.default_rng(0).normal(size=200_000).astype("f4"))
    with pytest.raises(ModelError, match="more than 1024 MiB"):
        read_h5(path)


def test_one_long_text_cannot_be_many_names(tmp_path: Path) -> None:
    """In the file lies one name of a megabyte and 2,000 references to it."""

    def twice(group: h5py.Group) -> None:
        group.attrs["weight_names"] = ["x" * 1_000_000, *[f"{number:04d}" for number in range(1999)]]

    content = bytearray(weights(tmp_path / "w.h5", twice).read_bytes())
    reference = (1_000_000).to_bytes(4, "little")
    first = content.index(reference)
    for number in range(1, 2000):
        content[first + 16 * number : first + 16 * number + 16] = content[first : first + 16]
    (tmp_path / "w.h5").write_bytes(content)
    ended = measured_python(READ, tmp_path / "w.h5")
    assert "too long ones" in ended.output
    assert ended.peak_mb < 150


def test_a_heap_that_leads_in_a_circle_is_not_read(tmp_path: Path) -> None:
    """HDF5 would never come back."""

    def named_by_text(group: h5py.Group) -> None:
        group.attrs["weight_names"] = ["dense/kernel:0"]

    content = bytearray(weights(tmp_path / "w.h5", named_by_text).read_bytes())
    assert read_h5(tmp_path / "w.h5")["dense"]["kernel"].shape == (2, 3)
    heap = content.index(b"GCOL")
    place = heap + 16
    while content[place : place + 2] != b"\0\0":
        place += 16 + -(-int.from_bytes(content[place + 8 : place + 16], "little") // 8) * 8
    for where, value in ((place + 8, bytes(8)), (heap + 8, bytes(7) + b"\x7f")):
        damaged = content.copy()
        damaged[where : where + 8] = value
        (tmp_path / "w.h5").write_bytes(damaged)
        ended = measured_python(READ, tmp_path / "w.h5", timeout_s=20)
        assert "heap of texts is damaged" in ended.output


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.h5")
    with pytest.raises(ModelError, match="no ordinary file"):
        read_h5(tmp_path / "w.h5")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, flips: list[tuple[float, int]]) -> None:
    whole = bytearray(weights(tmp_path / "whole.h5").read_bytes())
    for place, value in flips:
        whole[int(place * len(whole))] = value
    (tmp_path / "damaged.h5").write_bytes(whole)
    with suppress(ModelError):
        read_h5(tmp_path / "damaged.h5")
