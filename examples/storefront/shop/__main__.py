"""The steps of bilt.toml: python3 -m shop check | compile | package | deploy.

Lines that begin with :: are for whoever runs the step: `::progress 40::…`, `::notice::…`,
`::warning::…`, `::error::…`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from . import catalog, pages, picture, release

HOME = Path(__file__).resolve().parent.parent
PRODUCTS = HOME / "products"
BUILD = HOME / "build"
SITE = BUILD / "site"
PACKAGE = BUILD / "storefront.tar.gz"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m shop")
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("check", help="look through the products for mistakes")
    compiling = steps.add_parser("compile", help="make the pages and the pictures")
    compiling.add_argument("--workers", type=int, default=2, help="processes that draw (2)")
    compiling.add_argument("--size", type=int, default=picture.SIZE, help="pixels a side")
    steps.add_parser("package", help="pack the site with its checksums")
    deploying = steps.add_parser("deploy", help="roll the package out")
    deploying.add_argument("--to", type=Path, default=BUILD / "production", help="a folder")
    given = parser.parse_args()
    try:
        if given.step == "check":
            return check()
        if given.step == "compile":
            compile_site(given.workers, given.size)
        elif given.step == "package":
            package()
        else:
            deploy(given.to)
    except (OSError, ValueError) as error:
        say(f"::error::{error}")
        return 1
    return 0


def check() -> int:
    products, findings = catalog.lint(PRODUCTS)
    for product in products:
        say(f"  {product.slug:<14} {pages.price(product):>8}  {product.stock:>3} in stock")
    for finding in findings:
        say(f"::{'error' if finding.fatal else 'warning'}::{finding.file}: {finding.message}")
    wrong = sum(finding.fatal for finding in findings)
    say(f"{len(products) + wrong} products checked, {wrong} wrong")
    return 1 if wrong else 0


def compile_site(workers: int, size: int) -> None:
    products = catalog.load(PRODUCTS)
    shutil.rmtree(SITE, ignore_errors=True)
    SITE.mkdir(parents=True)
    (SITE / "style.css").write_text(pages.STYLE, encoding="utf-8")
    say(f"Drawing {len(products)} pots at {size} × {size} with {workers} processes")
    # Processes, because drawing keeps a core busy; and so a cancel has a whole family to stop.
    with ProcessPoolExecutor(workers) as pool:
        drawn = [(p, pool.submit(draw, p, size)) for p in products]
        for number, (product, picture_of) in enumerate(drawn):
            percent = 100 * number // len(drawn)
            say(f"::progress {percent}::Rendering {product.name} ({number + 1} of {len(drawn)})")
            data, seconds = picture_of.result()
            (SITE / f"{product.slug}.png").write_bytes(data)
            page = pages.product_page(product)
            (SITE / f"{product.slug}.html").write_text(page, encoding="utf-8")
            say(f"  {product.slug + '.html':<19} picture {len(data):>6,} B in {seconds:.2f} s")
    # The front page last: a site that has one is whole, and nothing else is ever packed.
    (SITE / "index.html").write_text(pages.front_page(products), encoding="utf-8")
    say(f"::progress 100::{len(products)} pages rendered")


def draw(product: catalog.Product, size: int) -> tuple[bytes, float]:
    began = time.perf_counter()
    return picture.png(product, size), time.perf_counter() - began


def package() -> None:
    if not (SITE / "index.html").exists():
        raise ValueError("there is no site yet: python3 -m shop compile")
    count, checksum = release.pack(SITE, PACKAGE)
    artifacts = os.environ.get("BILT_ARTIFACTS")
    if artifacts:
        shutil.copy(PACKAGE, artifacts)
    say(f"  {PACKAGE.name}  {PACKAGE.stat().st_size:,} B")
    say(f"::notice::Packaged {PACKAGE.name} ({count} files, sha256 {checksum[:12]})")


def deploy(production: Path) -> None:
    if not PACKAGE.exists():
        raise ValueError("there is no package yet: python3 -m shop package")
    for name, number, total in release.deploy(PACKAGE, production):
        say(f"::progress {100 * number // total}::Rolling out {number} of {total}")
        say(f"  {name}")
    say(f"::notice::Deployed to {production / 'current' / 'index.html'}")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
