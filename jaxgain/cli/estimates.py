"""Numbers with their standard errors, as experiments judge and print them."""

import math
from typing import TYPE_CHECKING, NamedTuple

from jaxgain.propagation.summary import mean_and_error

if TYPE_CHECKING:
    import xarray

SURE = 3.0  # standard errors


class Estimate(NamedTuple):
    """A mean over seeds, and its standard error.

    >>> print(Estimate(0.651184, 0.000258), Estimate(-12.3, 4.56), Estimate(2.0, 0.0))
    0.65118 ± 0.00026 -12.3 ± 4.6 2 ± 0
    """

    mean: float
    error: float

    def above(self, value: float) -> bool:
        """Whether it is more than `value`, by more than three standard errors.

        >>> Estimate(1.0, 0.1).above(0.8), Estimate(1.0, 0.1).above(0.6)
        (False, True)
        """
        return self.mean - SURE * self.error > value

    def below(self, value: float) -> bool:
        """Whether it is less than `value`, by more than three standard errors."""
        return self.mean + SURE * self.error < value

    def near(self, value: float, margin: float) -> bool:
        """Whether it is `value`, up to a margin and three standard errors.

        >>> Estimate(1.0, 0.1).near(1.3, 0.05), Estimate(1.0, 0.1).near(1.4, 0.05)
        (True, False)
        """
        return abs(self.mean - value) <= margin + SURE * self.error

    def exp(self) -> "Estimate":
        """Of a logarithm: the number itself, the error to first order.

        >>> print(Estimate(0.0953, 0.001).exp())
        1.1000 ± 0.0011
        """
        return Estimate(math.exp(self.mean), math.exp(self.mean) * self.error)

    def __str__(self) -> str:
        if not (math.isfinite(self.error) and math.isfinite(self.mean) and self.error > 0):
            return f"{self.mean:.4g} ± {self.error:.2g}"
        decimals = 1 - math.floor(math.log10(self.error))
        if decimals > 8 or self.error >= 1e5:
            return f"{self.mean:.4g} ± {self.error:.2g}"
        return f"{self.mean:.{max(decimals, 0)}f} ± {self.error:.{max(decimals, 0)}f}"


def estimate(values: "xarray.DataArray") -> Estimate:
    """The mean over seeds of what has no other dim left; `mean_and_error` says which seeds count.

    >>> import xarray
    >>> print(estimate(xarray.DataArray([1.0, 3.0], dims="seed")))
    2.0 ± 1.0
    """
    mean, error = mean_and_error(values)
    return Estimate(float(mean), float(error))
