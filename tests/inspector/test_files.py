"""The files of the page: their size, and the rules that the server's policy rests on."""

import re
import unittest

from support import FILES

LIMIT = 150_000  # bytes, of all files
NAMESPACE = "http://www.w3.org/2000/svg"  # a name, which no browser fetches
# Each of these would turn text into markup or code, or save the token for longer than the session.
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|createContextualFragment|setHTML"
    r"|\beval\b|new Function|setAttribute\(\"style\"|\.style\b|cssText|javascript:|localStorage[^;]*token"
)


class Files(unittest.TestCase):
    def setUp(self):
        self.files = {path.name: path.read_text() for path in FILES.iterdir()}

    def test_all_files_together_are_small(self):
        size = sum(len(text.encode()) for text in self.files.values())
        self.assertLess(size, LIMIT)

    def test_no_file_makes_markup_or_code_from_text(self):
        for name, text in self.files.items():
            with self.subTest(name):
                self.assertIsNone(FORBIDDEN.search(text))

    def test_no_file_names_another_host(self):
        for name, text in self.files.items():
            with self.subTest(name):
                self.assertEqual(re.findall(r"(?:https?:|wss?:)?//[a-z0-9.-]+\.[a-z]{2,}", text.replace(NAMESPACE, ""), re.I), [])
                self.assertNotIn("@import", text)

    def test_nothing_is_inline(self):
        page = self.files["index.html"]
        self.assertNotIn("<style", page)
        self.assertNotRegex(page, r"\s(?:style|on[a-z]+)=")
        for attributes, content in re.findall(r"<script([^>]*)>([^<]*)</script>", page):
            self.assertIn("src=", attributes)
            self.assertEqual(content, "")
        self.assertNotRegex(self.files["sprite.svg"], r"<script|<style|\sstyle=|\son[a-z]+=")

    def test_a_file_imports_only_files_that_are_there(self):
        for name, text in self.files.items():
            for imported in re.findall(r'^import .*? from "\./(.+?)";', text, re.M):
                with self.subTest(f"{name} imports {imported}"):
                    self.assertIn(imported, self.files)
