"""A report as one file: its tables stay on the page, its pictures are inside, and no text becomes markup."""

import re

from scratch_dl.terminal.html_page import html_page, plain_text


def test_each_table_scrolls_in_a_box_of_its_own():
    page = html_page("t", "| a |\n| --- |\n| 1 |\n\ntext\n\n| b |\n| --- |\n| 2 |\n", {})
    assert page.count('<div class="wide">\n<table>') == page.count("</table>\n</div>") == 2
    assert re.search(r"\.wide.*{ overflow-x: auto;", page)


def test_pictures_are_part_of_the_page_from_files_and_from_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"file")
    page = html_page("t", "![one](a.png) ![two](b.png)", {"a.png": tmp_path / "x", "b.png": b"bytes"})
    assert 'src="data:image/png;base64,ZmlsZQ=="' in page
    assert 'src="data:image/png;base64,Ynl0ZXM="' in page


def test_no_text_becomes_markup():
    text = "<b>bold</b> *stars* [x](y) `code` # a_b_ \\ |"
    page = html_page("<i>", f"# {plain_text(text)}\n", {})
    assert "<title>&lt;i&gt;</title>" in page
    assert "<h1>&lt;b&gt;bold&lt;/b&gt; *stars* [x](y) `code` # a_b_ \\ |</h1>" in page
