"""HTML fragments and number formats. Every function escapes what it is given, except where it says HTML.

A number that is missing or not finite is shown as a dash or by its name; none of the formats raises.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from recipes.reporting.pictures import DARK_COLOURS, Look

MISSING = "–"
# Characters that HTML does not allow, whatever the escaping.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_CREDENTIALS = re.compile(r"://[^/\s@]+@")


def text(value: Any) -> str:
    """Any value as HTML text that is safe inside elements and quoted attributes."""
    plain = str(value).encode("utf-8", "replace").decode("utf-8")
    return html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", plain), quote=True)


def without_credentials(plain: str) -> str:
    """A storage URI may carry a key and a secret (s3://key:secret@bucket); a page is passed around."""
    return _CREDENTIALS.sub("://…@", plain)


def _number(form: Callable[[float], str]) -> Callable[[Any], str]:
    def shown(value: Any) -> str:
        if value is None:
            return MISSING
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return str(value)
        return form(value) if math.isfinite(value) else f"not finite ({value})"

    return shown


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


loss = _number(lambda value: f"{value:.3f}")
count = _number(lambda value: f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:,.4g}")
percent = _number(lambda value: f"{100 * value:.1f} %")
seconds = _number(lambda value: f"{value:,.1f}")


@_number
def duration(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


@_number
def size(value: float) -> str:
    """Bytes in MiB or GiB."""
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


@_number
def large(value: float) -> str:
    """A count in a word's length: 60.5 M."""
    for unit, name in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.0f}"


def shorten(plain: str, most: int) -> str:
    """The start of a long text, saying how much is left out."""
    left_out = len(plain) - most
    return plain if left_out <= 20 else f"{plain[:most]} … ({left_out:,} more characters)"


def section(title: str, *inner: str) -> str:
    """A section; ``inner`` is HTML."""
    return f"<section>\n<h2>{text(title)}</h2>\n" + "\n".join(filter(None, inner)) + "\n</section>"


def paragraph(plain: str, style: str = "") -> str:
    return f'<p class="{style}">{text(plain)}</p>' if style else f"<p>{text(plain)}</p>"


def numbers(cards: Iterable[tuple[str, str, str]]) -> str:
    """(name, number, what it means) of each headline number."""
    inner = "\n".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd><dd>{text(meaning)}</dd></div>"
        for name, value, meaning in cards
    )
    return f'<dl class="numbers">\n{inner}\n</dl>'


def figures(rows: Iterable[tuple[str, Any]]) -> str:
    """A table of names and values, or nothing without rows."""
    inner = "\n".join(f"<tr><th scope=row>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in rows)
    return f'<table class="figures"><tbody>\n{inner}\n</tbody></table>' if inner else ""


def shares(heading: str, amounts: dict[str, float]) -> str:
    """Seconds by name with bars relative to their sum."""
    total = sum(value for value in amounts.values() if is_number(value)) or 1.0
    rows = []
    for name, value in amounts.items():
        part = max(value / total, 0.0) if is_number(value) else 0.0
        bar = f'<span class="bar" style="width:{100 * part:.1f}%"></span>'
        rows.append(
            f"<tr><th scope=row>{text(name)}</th><td>{text(seconds(value))}</td><td>{text(percent(part))}</td>"
            f'<td class="share">{bar}</td></tr>'
        )
    head = f"<tr><th>{text(heading)}</th><th>seconds</th><th>share</th><th></th></tr>"
    return f'<table class="phases"><thead>{head}</thead><tbody>\n' + "\n".join(rows) + "\n</tbody></table>"


def samples_table(samples: list[dict[str, Any]]) -> str:
    columns = (("source", 300), ("reference", 300), ("prediction", 300))
    rows = []
    for sample in samples:
        cells = (
            f'<td class="{name}" data-label="{name}" dir="auto">'
            f"{text(shorten(str(sample.get(name, MISSING)), most))}</td>"
            for name, most in columns
        )
        rows.append("<tr>" + "".join(cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name, _ in columns)
    return f'<table class="samples"><thead><tr>{head}</tr></thead><tbody>\n' + "\n".join(rows) + "\n</tbody></table>"


def folded(title: str, plain: str) -> str:
    """Text that opens on a click."""
    return f"<details><summary>{text(title)}</summary><pre>{text(plain)}</pre></details>"


def picture(description: str, draw: Callable[[Look], bytes]) -> str:
    """A PNG inside the page, drawn for phones and desktops, light and dark."""
    phone, dark = "(max-width: 40rem)", "(prefers-color-scheme: dark)"
    looks = {
        f"{phone} and {dark}": Look(narrow=True, **DARK_COLOURS),
        phone: Look(narrow=True),
        dark: Look(**DARK_COLOURS),
    }
    sources = "\n".join(f'<source media="{media}" srcset="{_data_uri(draw(look))}">' for media, look in looks.items())
    image = f'<img alt="{text(description)}" src="{_data_uri(draw(Look()))}">'
    return f"<figure><picture>\n{sources}\n{image}\n</picture></figure>"


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
