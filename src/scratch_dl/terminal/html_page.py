"""A report in Markdown as one HTML file that needs no other file and no network."""

import html
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

_PAGE_PX = 1100
_WIDTH = slice(16, 20)  # of a PNG: where its header has the width
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222;
       overflow-wrap: break-word; }
.wide, p:has(> img) { overflow-x: auto; margin: 0.8em 0; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 3px 9px; border-bottom: 1px solid #ddd; vertical-align: top; max-width: 40em;
         overflow-wrap: break-word; }
td[style*="right"] { white-space: nowrap; }
th { border-bottom: 2px solid #999; text-align: left; }
pre { background: #f5f5f5; padding: 0.7em; white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-size: 13px; background: #f5f5f5; }
img { max-width: 100%; }
h2 { border-bottom: 1px solid #ddd; margin-top: 1.8em; }
"""
_ESCAPED = "\\`*_[]<>#|"


def html_page(title: str, markdown: str, pictures: Mapping[str, Path | bytes]) -> str:
    """Return a page.

    A table that is wider than the page scrolls in a box of its own. So does a picture that the page would shrink to
    less than half of its size.

    Args:
        title: of the page, as text.
        markdown: in CommonMark with tables; HTML in it is shown, not interpreted.
        pictures: the PNG (a file or its content) for each address that the Markdown names as a picture.

    Raises:
        OSError: if a picture cannot be read.
    """
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = body.replace("<table>", '<div class="wide">\n<table>').replace("</table>", "</table>\n</div>")
    for name, picture in pictures.items():
        content = picture.read_bytes() if isinstance(picture, Path) else picture
        data = f'src="data:image/png;base64,{b64encode(content).decode()}"'
        width = int.from_bytes(content[_WIDTH], "big")
        style = f' style="min-width: {width // 2}px"' if width > 2 * _PAGE_PX else ""
        body = body.replace(f'src="{name}"', data + style)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def plain_text(text: str) -> str:
    """Return a text in which Markdown sees nothing but text."""
    return "".join(f"\\{letter}" if letter in _ESCAPED else letter for letter in text)
