import numpy as np
import pytest

from jaxgain.runs.parts import Damaged, Piece, ranges_of_part, read_part, write_part

RNG = np.random.default_rng(0)


def pieces():
    first = {"std": RNG.normal(size=(3, 4, 5)).astype(np.float32), "first": np.array([[-1], [2], [3]], np.int32)}
    return [Piece(2, 5, first), Piece(7, 8, {"std": np.full((1, 4, 5), np.nan, np.float32)})]


def test_pieces_come_back_bit_for_bit(tmp_path):
    written = pieces()
    found, seconds = read_part(write_part(tmp_path / "a.part", written, 1.5))
    assert seconds == 1.5
    for one, other in zip(written, found, strict=True):
        assert (one.start, one.stop, [*one.arrays]) == (other.start, other.stop, [*other.arrays])
        for name, array in one.arrays.items():
            assert other.arrays[name].dtype == array.dtype
            assert other.arrays[name].tobytes() == array.tobytes()
    assert ranges_of_part(tmp_path / "a.part") == [(2, 5), (7, 8)]
    assert [file.name for file in tmp_path.iterdir()] == ["a.part"]


def test_any_byte_that_changed_is_found_out(tmp_path):
    path = write_part(tmp_path / "a.part", pieces())
    whole = path.read_bytes()
    for at in RNG.integers(0, len(whole), 200):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << RNG.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(Damaged, match=r"a\.part is damaged: its checksum"):
            read_part(path)


def test_any_truncation_is_found_out(tmp_path):
    path = write_part(tmp_path / "a.part", pieces())
    whole = path.read_bytes()
    for length in [0, 1, 64, 65, 66, 100, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            read_part(path)
        with pytest.raises(Damaged):
            ranges_of_part(path)


def test_no_array_of_python_objects_is_read_or_written(tmp_path):
    with pytest.raises(TypeError):
        write_part(tmp_path / "a.part", [Piece(0, 1, {"std": np.array([{}], object)})])
    assert [*tmp_path.iterdir()] == []
