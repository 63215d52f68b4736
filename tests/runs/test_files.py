import numpy as np
import pytest
import xarray
from matplotlib.figure import Figure

from jaxgain.runs.files import load_dataset, output_folder, save_dataset, save_figure, saved_attributes, write_whole


def a_dataset(value: float) -> xarray.Dataset:
    gains = np.array([1.0, 5 / 3])
    return xarray.Dataset(
        {"std": ("gain", [value, np.inf])},
        coords={"gain": gains, "gain_name": ("gain", ["", "torch"])},
        attrs={"config": "{}"},
    )


def test_a_dataset_comes_back_as_it_was(tmp_path):
    save_dataset(a_dataset(1.0), tmp_path / "a.nc")
    xarray.testing.assert_identical(load_dataset(tmp_path / "a.nc"), a_dataset(1.0))


def test_attributes_alone_are_those_of_the_dataset(tmp_path):
    numbers = {"seconds": 2.5, "count": 3, "name": "σ", "both": [1, 2]}
    save_dataset(a_dataset(1.0).assign_attrs(numbers), tmp_path / "a.nc")
    found = saved_attributes(tmp_path / "a.nc")
    assert found.keys() == {"config", *numbers}
    assert (float(found["seconds"]), int(found["count"]), found["name"]) == (2.5, 3, "σ")
    assert found["both"].tolist() == [1, 2]


def test_a_dataset_replaces_the_one_before(tmp_path):
    for value in (1.0, 2.0):
        save_dataset(a_dataset(value), tmp_path / "a.nc")
    assert float(load_dataset(tmp_path / "a.nc")["std"][0]) == 2.0
    assert [file.name for file in tmp_path.iterdir()] == ["a.nc"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.nc"
    save_dataset(a_dataset(1.0), path)

    def fails_midway(temporary):
        temporary.write_text("half of")
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        write_whole(path, fails_midway)
    assert float(load_dataset(path)["std"][0]) == 1.0
    assert [file.name for file in tmp_path.iterdir()] == ["a.nc"]


def test_a_figure_has_the_format_of_its_suffix(tmp_path):
    figure = Figure()
    save_figure(figure, tmp_path / "a.png")
    save_figure(figure, tmp_path / "a.pdf")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_an_output_folder_is_proved_before_it_is_made(tmp_path):
    folder = output_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    write_whole(folder / "note.txt", lambda temporary: temporary.write_text("all of it"))
    assert (folder / "note.txt").read_text() == "all of it"


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to the folder .*; choose another"):
        output_folder(tmp_path / "a")


@pytest.mark.parametrize(("content", "reason"), [(None, "no such file"), ("text", "not a netCDF file")])
def test_what_is_no_dataset_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "a.nc"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=reason):
        load_dataset(path)
