"""The products: one Markdown file each, with a few `key: value` lines between two lines of ---."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

KEYS = {"name", "price", "stock", "glaze", "dip", "profile", "handle"}
LOW_STOCK = 3


@dataclass(frozen=True)
class Product:
    """One pot; `profile` is its outline, radii from foot to lip at even heights."""

    slug: str
    name: str
    price: Decimal
    stock: int
    glaze: str
    dip: str
    profile: tuple[float, ...]
    handle: bool
    text: str


@dataclass(frozen=True)
class Finding:
    """Something that is wrong (or, if not `fatal`, worth a look) with one file."""

    file: str
    message: str
    fatal: bool = True


def load(folder: Path) -> list[Product]:
    """Read all products, or raise ValueError with everything that is wrong."""
    products, findings = lint(folder)
    wrong = [f"{f.file}: {f.message}" for f in findings if f.fatal]
    if wrong:
        raise ValueError("; ".join(wrong))
    return products


def lint(folder: Path) -> tuple[list[Product], list[Finding]]:
    """Read all products and say what is wrong with any of them."""
    products: list[Product] = []
    findings: list[Finding] = []
    for file in sorted(folder.glob("*.md")):
        try:
            product = parse(file.stem, file.read_text(encoding="utf-8"))
        except ValueError as error:
            findings.append(Finding(file.name, str(error)))
            continue
        if product.stock <= LOW_STOCK:
            findings.append(Finding(file.name, f"only {product.stock} left in stock", fatal=False))
        products.append(product)
    if not products and not findings:
        findings.append(Finding(folder.name, "has no products"))
    return products, findings


def parse(slug: str, source: str) -> Product:
    """Turn one file's text into a product; ValueError says what does not fit."""
    match = re.fullmatch(r"---\n(.*?)\n---\n(.+)", source, re.DOTALL)
    if match is None:
        raise ValueError("must be `key: value` lines between two lines of ---, then the text")
    head = dict(_pair(line) for line in match[1].splitlines())
    unknown, missing = sorted(head.keys() - KEYS), sorted(KEYS - head.keys() - {"handle"})
    if unknown or missing:
        told = [f"unknown {key}" for key in unknown] + [f"{key} is missing" for key in missing]
        raise ValueError(", ".join(told))
    for key in ("glaze", "dip"):
        if not re.fullmatch(r"#[0-9a-f]{6}", head[key]):
            raise ValueError(f"{key} must look like #c8553d, not {head[key]!r}")
    try:
        price = Decimal(head["price"])
        profile = tuple(float(radius) for radius in head["profile"].split())
    except (InvalidOperation, ValueError):
        raise ValueError("price and profile must be numbers") from None
    if price <= 0 or price != price.quantize(Decimal("0.01")):
        raise ValueError(f"price must be above zero, in whole cents, not {price}")
    if len(profile) < 3 or not all(0.1 <= radius <= 1 for radius in profile):
        raise ValueError("profile must be three or more radii from 0.1 to 1")
    if not head["stock"].isdigit():
        raise ValueError(f"stock must be a whole number, not {head['stock']!r}")
    return Product(
        slug=slug,
        name=head["name"],
        price=price,
        stock=int(head["stock"]),
        glaze=head["glaze"],
        dip=head["dip"],
        profile=profile,
        handle=head.get("handle") == "yes",
        text=match[2].strip(),
    )


def _pair(line: str) -> tuple[str, str]:
    key, colon, value = line.partition(":")
    if not colon:
        raise ValueError(f"{line!r} is not a `key: value` line")
    return key.strip(), value.strip()
