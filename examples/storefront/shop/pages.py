"""The pages: a little Markdown, a page a product, and the front page."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from .catalog import Product

STYLE = """\
body { margin: 3rem auto; max-width: 56rem; padding: 0 1rem; background: #faf7f2; color: #2d2a26;
       font: 17px/1.5 Georgia, serif; }
a { color: inherit; text-decoration: none; }
h1 { font-weight: normal; letter-spacing: .02em; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); gap: 1.5rem; }
article { background: #fff; border-radius: .6rem; overflow: hidden; box-shadow: 0 1px 4px #0002; }
article p, article h2 { margin: .6rem 1rem; font-size: 1rem; }
img { width: 100%; display: block; }
.gone { color: #a33; }
"""


def product_page(product: Product) -> str:
    """One pot, large."""
    stock = f"{product.stock} in stock" if product.stock else '<span class="gone">sold out</span>'
    return _page(
        product.name,
        f'<p><a href="index.html">← All pots</a></p>\n<article style="max-width: 24rem">'
        f"{_picture(product)}\n<p>{markdown(product.text)}</p>\n"
        f"<p>{price(product)} · {stock}</p></article>",
    )


def front_page(products: Sequence[Product]) -> str:
    """All pots, each leading to its page."""
    cards = "\n".join(
        f'<a href="{p.slug}.html"><article>{_picture(p)}'
        f"<h2>{html.escape(p.name)}</h2><p>{price(p)}</p></article></a>"
        for p in products
    )
    return _page("Hearth & Clay", f"<main>\n{cards}\n</main>")


def markdown(text: str) -> str:
    """**Strong** and *stressed* words, paragraphs, and nothing else; all else is shown as it is."""
    safe = html.escape(text)
    safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe, flags=re.DOTALL)
    safe = re.sub(r"\*(.+?)\*", r"<em>\1</em>", safe, flags=re.DOTALL)
    return re.sub(r"\n\s*\n", "</p>\n<p>", safe)


def price(product: Product) -> str:
    """The price as customers read it."""
    return f"€{product.price:,.2f}"


def _picture(product: Product) -> str:
    return f'<img src="{product.slug}.png" alt="{html.escape(product.name)}">'


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{html.escape(title)}</title>\n"
        '<link rel="stylesheet" href="style.css">\n'
        f"<h1>{html.escape(title)}</h1>\n{body}\n</html>\n"
    )
