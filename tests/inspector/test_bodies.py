"""Bodies that try to be more than text, and bodies that are large, foreign or no text."""

import unittest

from support import bench, close, shot


class Bodies(unittest.TestCase):
    def show(self, webhook, body, content_type="application/json"):
        self.assertEqual(bench.gateway.send(webhook, body, content_type=content_type), 200)
        event = bench.gateway.event(webhook=webhook, since=bench.gateway.sent)
        page = bench.browser.open(bench.gateway, f"#/events/{event['id']}")
        page.locator(".code[aria-label=Body]").wait_for()
        return page

    def test_markup_is_text(self):
        body = {"<b>key</b>": "<script>window.hit = 1</script>", "img": "<img src=x onerror='window.hit = 1'>"}
        page = self.show("plain", body)
        text = page.locator(".code[aria-label=Body]").inner_text()
        self.assertIn("<script>window.hit = 1</script>", text)
        self.assertIn("<b>key</b>", text)
        self.assertEqual(page.locator(".code script, .code img, .code b").count(), 0)
        self.assertIsNone(page.evaluate("window.hit ?? null"))
        # The policy refuses to make markup from text, whatever a script tries.
        refused = page.evaluate("(() => { try { document.body.insertAdjacentHTML('beforeend', '<p>'); return '' } catch (e) { return e.name } })()")
        self.assertEqual(refused, "TypeError")
        page.wait_for_timeout(200)
        page.faults.clear()  # the lines of the policy about this
        shot(page, "body-markup")
        close(page)

    def test_a_body_of_25_mib_is_cut_and_says_so(self):
        body = b'{"data":"' + b"x" * (25 * 1024 * 1024 - 11) + b'"}'
        self.assertEqual(len(body), 25 * 1024 * 1024)
        page = self.show("plain", body)
        page.get_by_text("The body has 25 MiB; the history keeps the first").wait_for()
        self.assertTrue(page.get_by_role("button", name="Replay").is_disabled())
        shot(page, "body-25-mib")
        close(page)

    def test_bytes_that_are_no_utf_8_are_shown_as_bytes(self):
        page = self.show("blob", bytes.fromhex("89504e47 fffe00c0af 41424344"), "application/octet-stream")
        text = page.locator(".code[aria-label=Body]").inner_text()
        self.assertIn("89 50 4e 47 ff fe 00 c0 af 41 42 43 44", text)
        self.assertIn("ABCD", text)
        page.get_by_text("This body is not UTF-8").wait_for()
        with page.expect_download() as saved:
            page.get_by_role("button", name="Save").click()
        self.assertEqual(saved.value.path().read_bytes(), bytes.fromhex("89504e47fffe00c0af41424344"))
        shot(page, "body-bytes")
        close(page)

    def test_right_to_left_text_does_not_reorder_the_page(self):
        page = self.show("plain", {"name": "שלום ‮gnp.exe‬ العربية", "plain": "after"})
        text = page.locator(".code[aria-label=Body]").inner_text()
        self.assertIn("\\u202e", text)
        self.assertNotIn("‮", page.content())
        self.assertIn("שלום", text)
        shot(page, "body-right-to-left")
        close(page)

    def test_numbers_and_repeated_keys_of_json_stay_as_they_are(self):
        page = self.show("plain", b'{"n":9007199254740993,"a":1,"a":2,"deep":{"x":[1,{"y":"z"}]}}')
        text = page.locator(".code[aria-label=Body]").inner_text()
        self.assertIn("9007199254740993", text)
        self.assertEqual(text.count('"a"'), 2)
        # The pointer of the current line, for `dedup`.
        page.locator(".line", has_text='"y"').click()
        self.assertEqual(page.locator("output").inner_text().strip(), "/deep/x/1/y")
        page.get_by_label("Search the body").fill("900719")
        page.get_by_text("1 of 1", exact=True).wait_for()
        close(page)

    def test_a_deeply_nested_body_does_not_stop_the_page(self):
        page = self.show("blob", b"[" * 60_000, "application/json")
        page.get_by_role("button", name="Show all").wait_for()
        close(page)
