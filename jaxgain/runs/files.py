"""Files that appear whole or not at all, and the check of an output folder before a long run."""

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


def output_folder(folder: str | Path) -> Path:
    """Prove that files can be written in `folder`, or that it can be made; make nothing yet.

    Raises `ValueError` with the reason where it cannot: better before a long run than after it.
    """
    folder = Path(folder)
    standing = folder
    while not standing.exists() and standing != standing.parent:
        standing = standing.parent
    try:
        probe = _beside(standing / "probe")
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise ValueError(f"cannot write to the folder {folder} ({error.strerror}); choose another") from error
    return folder


def write_whole(path: str | Path, write: Callable[[Path], object], size: int = 0) -> Path:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    Readers see the old file or the new one, never a part; whatever `write` raises passes through, and nothing
    is left behind. The temporary file has the suffix of `path`. Where the disk has no room for about `size` bytes
    that is an `OSError` before anything is written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_whole(f"{folder}/note.txt", lambda temporary: temporary.write_text("all of it"))
    ...     path.read_text(), [file.name for file in Path(folder).iterdir()]
    ('all of it', ['note.txt'])
    """
    path = Path(path)
    temporary = _beside(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if size:
            _reserve(temporary, size, path)
        write(temporary)
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def remove_unfinished(path: str | Path) -> None:
    """Remove what processes that were killed left of writing files at `path`, in whose name `*` stands for anything.

    Only while no other process can be writing them.
    """
    path = Path(path)
    for temporary in path.parent.glob(f".{path.stem}-{'[0-9a-f]' * 32}{path.suffix}"):
        temporary.unlink(missing_ok=True)


def save_dataset(dataset: "xarray.Dataset", path: str | Path) -> Path:
    """Write a dataset as netCDF (through h5netcdf), whole or not at all."""
    return write_whole(path, lambda temporary: dataset.to_netcdf(temporary, engine="h5netcdf"), netcdf_bytes(dataset))


def netcdf_bytes(dataset: "xarray.Dataset") -> int:
    """About as many bytes as a dataset takes on disk, and a little more."""
    return dataset.nbytes + 2**16


def load_dataset(path: str | Path) -> "xarray.Dataset":
    """Read a dataset that `save_dataset` wrote, into memory. Nothing in a file is ever executed.

    Raises `ValueError` where there is no such file, or it is not netCDF, or damaged.
    """
    with _opened(path) as dataset:
        try:
            return dataset.load()
        except Exception as error:  # whatever a damaged file makes its readers raise
            raise ValueError(f"cannot read the dataset {path}: it is damaged") from error


def open_dataset(path: str | Path) -> "xarray.Dataset":
    """Open a dataset whose values are read as they are needed, and close it with its `close`; errors as in the above.

    For datasets larger than memory.
    """
    return _opened(path)


def saved_attributes(path: str | Path) -> dict[str, Any]:
    """Read the attributes of a dataset and nothing else; errors as in `load_dataset`."""
    with _readable(path) as file:  # without xarray, whose memory would come on top of the compiler's
        import h5netcdf

        return dict(h5netcdf.File(file, "r").attrs)


def is_ours(path: str | Path, mark: str, what: str) -> bool:
    """Whether a dataset with the attribute `mark` is saved at `path`; raises `ValueError` where another file is.

    >>> is_ours("no/such/file.nc", "config_hash", "a sweep")
    False
    """
    if not Path(path).exists():
        return False
    try:
        ours = mark in saved_attributes(path)
    except ValueError:
        ours = False
    if not ours:
        raise ValueError(f"{path} exists and is not {what} of jaxgain; move it away or choose another folder")
    return True


def _opened(path: str | Path) -> "xarray.Dataset":
    with _readable(path):
        import xarray

        return xarray.open_dataset(path, engine="h5netcdf")


@contextmanager
def _readable(path: str | Path) -> Iterator[Any]:
    """The file open in h5py, which minds a broken one better than what reads it next."""
    import h5py

    try:
        with h5py.File(path) as file:
            file.attrs.get("_nc3_strict")
            yield file
    except Exception as error:  # whatever a damaged file makes its readers raise
        reason = "it is not a netCDF file, or damaged" if Path(path).is_file() else "there is no such file"
        raise ValueError(f"cannot read the dataset {path}: {reason}") from error


def save_figure(figure: "Figure", path: str | Path) -> Path:
    """Write a figure, in the format of the path's suffix, whole or not at all."""
    return write_whole(path, lambda temporary: figure.savefig(temporary))


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.stem}-{uuid.uuid4().hex}{path.suffix}")


def _reserve(temporary: Path, size: int, path: Path) -> None:
    """Prove that the disk has room: HDF5, where it finds none, breaks down and takes the process with it."""
    with temporary.open("wb") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            elif shutil.disk_usage(path.parent).free < size:
                raise OSError(errno.ENOSPC, "")
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or errno.EIO), str(path)) from error


def _flush(path: Path) -> None:
    """Wait until the disk holds a file, or a folder's list of files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
