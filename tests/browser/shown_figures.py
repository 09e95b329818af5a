"""Figures as the page writes them in English; see `api/page/app/format.js`.

A browser rounds the shortest decimal of a number, and rounds halves up.
"""

from decimal import ROUND_HALF_UP, Context, Decimal


def shown_number(value: float | None) -> str:
    """A number with four significant digits; a dash for none."""
    return "–" if value is None else _significant(value, 4)


def shown_apart(*values: float) -> list[str]:
    """Numbers beside each other, with four significant digits, or up to eight, until different ones differ."""
    texts: list[str] = []
    for digits in range(4, 9):
        texts = [_significant(value, digits) for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts


def shown_ratio(score: float, threshold: float) -> str:
    """A score as a multiple of its threshold, with two decimals, or up to eight if fewer show 1."""
    for digits in range(2, 9):
        rounded = _rounded(Decimal(repr(score / threshold)), digits)
        if score == threshold or rounded != 1:
            return f"{rounded:,f} ×"
    return f"{'<' if score < threshold else '>'} 1 ×"


def shown_duration(milliseconds: float) -> str:
    """Milliseconds in ms or, from 1000 to below 90,000, in seconds."""
    value, unit = (milliseconds, "ms") if milliseconds < 1000 else (milliseconds / 1000, "sec")
    return f"{_plain(_rounded(Decimal(repr(value)), int(value < 10)))} {unit}"


def shown_percent(share: float | None) -> str:
    """A share in percent, with a decimal if it is small; a dash for none."""
    if share is None:
        return "–"
    digits = 1 if 0 < share < 0.1 else 0
    return f"{_plain(_rounded(100 * Decimal(repr(share)), digits))}%"


def _significant(value: float, digits: int) -> str:
    context = Context(prec=digits, rounding=ROUND_HALF_UP)
    return _plain(context.create_decimal(repr(value)), grouped=True)


def _rounded(value: Decimal, digits: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)


def _plain(value: Decimal, *, grouped: bool = False) -> str:
    text = f"{value:{',' if grouped else ''}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
