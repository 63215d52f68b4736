"""Large datasets, written a slab at a time."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxgain.runs.files import netcdf_bytes, write_whole

if TYPE_CHECKING:
    import xarray


class Variable(NamedTuple):
    """What is known of a variable before its values are."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    attrs: Mapping[str, Any]


class Slab(NamedTuple):
    """Values for a place in a variable."""

    name: str
    place: tuple[int | slice, ...]
    values: np.ndarray


def save_slabs(
    frame: "xarray.Dataset", variables: Mapping[str, Variable], slabs: Iterable[Slab], path: str | Path
) -> Path:
    """Write a netCDF file, whole or not at all, that `load_dataset` reads as `frame` with these variables.

    No more than a slab of the values is in memory at a time. `frame` holds coordinates and attributes.
    """

    def write(temporary: Path) -> None:
        import h5netcdf

        frame.to_netcdf(temporary, engine="h5netcdf")
        with h5netcdf.File(temporary, "a") as file:
            for name, variable in variables.items():
                for dim, size in zip(variable.dims, variable.shape, strict=True):
                    if dim not in file.dimensions:
                        file.dimensions[dim] = size
                blank = np.nan if variable.dtype.kind == "f" else None
                created = file.create_variable(name, variable.dims, variable.dtype, fillvalue=blank)
                created.attrs.update(variable.attrs)
            for name, place, values in slabs:
                file.variables[name][place] = values

    size = sum(math.prod(variable.shape) * variable.dtype.itemsize for variable in variables.values())
    return write_whole(path, write, netcdf_bytes(frame) + size)
