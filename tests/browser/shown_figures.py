"""Figures as the page writes them in English; see `api/page/app/format.js`."""

from decimal import Decimal


def shown_number(value: float | None) -> str:
    """A number with four significant digits; a dash for none."""
    return "–" if value is None else _plain(Decimal(f"{value:.4g}"), grouped=True)


def shown_percent(share: float | None) -> str:
    """A share in percent, with a decimal if it is small; a dash for none."""
    if share is None:
        return "–"
    digits = 1 if 0 < share < 0.1 else 0
    return f"{_plain(Decimal(f'{100 * share:.{digits}f}'))}%"


def _plain(value: Decimal, *, grouped: bool = False) -> str:
    text = f"{value:{',' if grouped else ''}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
