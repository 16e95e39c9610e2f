"""The project's own tests, the `test` step: python3 -m unittest -v shop.test_shop."""

from __future__ import annotations

import re
import tempfile
import unittest
import zlib
from decimal import Decimal
from pathlib import Path

from . import catalog, pages, picture, release

HOME = Path(__file__).resolve().parent.parent
SITE = HOME / "build" / "site"
POT = catalog.Product(
    slug="test-pot",
    name="Test <pot>",
    price=Decimal("1234.50"),
    stock=0,
    glaze="#804020",
    dip="#ffffff",
    profile=(0.4, 0.6, 0.5),
    handle=True,
    text="**Bold**, *slanted* & plain.",
)


class Catalog(unittest.TestCase):
    """Reading products."""

    def source(self, **changes: str) -> str:
        head = {
            "name": "Cup",
            "price": "9.50",
            "stock": "7",
            "glaze": "#102030",
            "dip": "#a0b0c0",
            "profile": "0.3 0.5 0.4",
        }
        lines = "".join(f"{key}: {value}\n" for key, value in {**head, **changes}.items())
        return f"---\n{lines}---\nA cup.\n"

    def test_a_product_is_read(self) -> None:
        cup = catalog.parse("cup", self.source())
        self.assertEqual((cup.name, cup.price, cup.stock), ("Cup", Decimal("9.50"), 7))

    def test_mistakes_are_named(self) -> None:
        for changes, told in (
            ({"price": "-1"}, "price"),
            ({"price": "1.005"}, "cents"),
            ({"glaze": "red"}, "glaze"),
            ({"stock": "many"}, "stock"),
            ({"profile": "0.3 9"}, "profile"),
            ({"colour": "#000000"}, "unknown colour"),
        ):
            with self.subTest(told), self.assertRaisesRegex(ValueError, told):
                catalog.parse("cup", self.source(**changes))

    def test_every_product_of_the_shop_is_sound(self) -> None:
        self.assertGreaterEqual(len(catalog.load(HOME / "products")), 12)


class Pages(unittest.TestCase):
    """Making pages."""

    def test_text_is_escaped_and_marked_up(self) -> None:
        page = pages.product_page(POT)
        self.assertIn("Test &lt;pot&gt;", page)
        self.assertIn("<strong>Bold</strong>, <em>slanted</em> &amp; plain.", page)

    def test_price_and_stock_are_shown(self) -> None:
        page = pages.product_page(POT)
        self.assertIn("€1,234.50", page)
        self.assertIn("sold out", page)


class Pictures(unittest.TestCase):
    """Drawing pots."""

    def test_a_picture_shows_the_glaze(self) -> None:
        rows = list(picture.render(POT, 24))
        red, green, blue = rows[14][36:39]
        self.assertGreater(red, green)
        self.assertGreater(green, blue)

    def test_a_picture_is_the_same_every_time(self) -> None:
        self.assertEqual(picture.png(POT, 16), picture.png(POT, 16))


class Site(unittest.TestCase):
    """What `compile` made."""

    def test_no_link_leads_nowhere(self) -> None:
        for page in SITE.glob("*.html"):
            for target in re.findall(r'(?:href|src)="([^"]+)"', page.read_text(encoding="utf-8")):
                with self.subTest(page=page.name, target=target):
                    self.assertTrue((SITE / target).is_file())

    def test_every_product_has_a_page_and_a_picture(self) -> None:
        for product in catalog.load(HOME / "products"):
            with self.subTest(product.slug):
                self.assertTrue((SITE / f"{product.slug}.html").is_file())
                data = (SITE / f"{product.slug}.png").read_bytes()
                self.assertEqual(zlib.crc32(data[-8:-4]), int.from_bytes(data[-4:], "big"))


class Release(unittest.TestCase):
    """Packing and rolling out."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        site = self.folder / "site"
        site.mkdir()
        (site / "index.html").write_text("<h1>Shop</h1>")
        self.package = self.folder / "shop.tar.gz"
        release.pack(site, self.package)

    def test_a_stopped_roll_out_leaves_the_old_shop_open(self) -> None:
        production = self.folder / "production"
        list(release.deploy(self.package, production))
        old = (production / "current").resolve()
        (self.folder / "site" / "index.html").write_text("<h1>New shop</h1>")
        release.pack(self.folder / "site", self.package)
        next(release.deploy(self.package, production))  # the first file, and no further
        self.assertEqual((production / "current").resolve(), old)
        list(release.deploy(self.package, production))
        index = production / "current" / "index.html"
        self.assertEqual(index.read_text(), "<h1>New shop</h1>")
        self.assertEqual(list(production.glob("*.partial")), [])


if __name__ == "__main__":
    unittest.main()
