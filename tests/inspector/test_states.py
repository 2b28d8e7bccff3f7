"""Empty, off, forbidden, disconnected, signed out."""

import re
import unittest

from playwright.sync_api import expect
from support import ADMIN, READER, SHOP, Gateway, bench, close, settle, shot


class SignedOut(unittest.TestCase):
    def test_a_wrong_token_is_refused_and_a_right_one_is_kept_for_the_session_only(self):
        page = bench.browser.open(bench.gateway, "#/webhooks", token=None)
        page.get_by_label("Admin token").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("The gateway does not accept this token.").wait_for()
        shot(page, "signed-out")
        page.get_by_label("Admin token").fill(ADMIN)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Webhooks").wait_for()
        kept = page.evaluate("[Object.values(sessionStorage).join(), Object.values(localStorage).join(), document.cookie, location.href]")
        self.assertEqual(kept[0], ADMIN)
        self.assertNotIn(ADMIN, "".join(kept[1:]))
        # A reload keeps the session, and the place.
        page.reload()
        page.get_by_role("heading", name="Webhooks").wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("Admin token").wait_for()
        self.assertEqual(page.evaluate("sessionStorage.length"), 0)
        close(page)

    def test_only_the_files_of_the_page_are_open(self):
        page = bench.browser.open(bench.gateway, token=None)
        for path, status in [("ui/", 200), ("ui/app.js", 200), ("ui/nothing", 404), ("ui/../session", 401), ("session", 401), ("events", 401), ("openapi.json", 401), ("", 401)]:
            got = page.evaluate("(path) => fetch('../' + path).then((answer) => answer.status)", path)
            with self.subTest(path):
                self.assertIn(got, {status, 404} if status == 401 else {status})
        policy = page.evaluate("fetch('').then((answer) => answer.headers.get('content-security-policy'))")
        for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"):
            self.assertIn(part, policy)
        self.assertNotIn("unsafe", policy)
        close(page)


class Rights(unittest.TestCase):
    def test_a_token_that_may_only_read_sees_buttons_that_are_disabled(self):
        bench.gateway.send("plain", {"read": "only"})
        event = bench.gateway.event(webhook="plain", since=bench.gateway.sent)
        page = bench.browser.open(bench.gateway, f"#/events/{event['id']}", token=READER)
        replay = page.get_by_role("button", name="Replay")
        replay.wait_for()
        self.assertTrue(replay.is_disabled())
        self.assertEqual(replay.get_attribute("title"), "Your token may only read")
        page.get_by_text("reader, may only read").wait_for()
        shot(page, "read-only")
        close(page)

    def test_a_token_of_one_namespace_shows_no_other(self):
        bench.gateway.send("plain", {"other": "namespace"})
        bench.gateway.send("shop/later", {"own": "namespace"})
        bench.gateway.event(webhook="later")
        page = bench.browser.open(bench.gateway, "#/events", token=SHOP)
        page.locator("tr[data-id]").first.wait_for()
        self.assertEqual(page.locator("tr[data-id]", has_text="default/").count(), 0)
        for screen in ("webhooks", "dead", "dead?view=waiting", "system", "live"):
            page.evaluate("(screen) => { location.hash = '#/' + screen }", screen)
            settle(page)
            text = page.locator("body").inner_text()
            with self.subTest(screen):
                self.assertNotIn("default/", text)
                self.assertNotIn("cannot be shown", text)
                self.assertNotIn("Not allowed", text)
        shot(page, "one-namespace")
        close(page)


class Off(unittest.TestCase):
    def test_without_history_and_queue_each_screen_says_so(self):
        gateway = Gateway("bare", bench.target, history=False, queue=False)
        self.addCleanup(gateway.stop)
        page = bench.browser.open(gateway)
        page.get_by_role("heading", name="No history").wait_for()
        page.get_by_text("HISTORY_DIR").wait_for()
        shot(page, "no-history")
        page.keyboard.press("2")
        page.get_by_role("heading", name="No history").wait_for()
        page.keyboard.press("3")
        page.locator("button.cover", has_text="default/plain").wait_for()
        page.keyboard.press("4")
        page.get_by_role("heading", name="No queue").wait_for()
        page.get_by_text("SPOOL_DIR").wait_for()
        page.keyboard.press("5")
        page.get_by_text("There is no queue of accepted events").wait_for()
        page.get_by_text("There is no history of events").wait_for()
        shot(page, "system-bare")
        close(page)

    def test_without_history_the_queue_still_shows_its_events(self):
        gateway = Gateway("queue-only", bench.target, history=False)
        self.addCleanup(gateway.stop)
        bench.target.status = 503
        self.assertEqual(gateway.send("shop/later", {"only": "queued"}), 202)
        page = bench.browser.open(gateway, "#/dead?view=waiting")
        page.locator("tr[data-id] a").first.click()
        page.get_by_text("The history does not have this event.").wait_for()
        self.assertIn('"queued"', page.locator(".code").inner_text())
        close(page)

    def test_empty_screens_say_what_would_be_there(self):
        gateway = Gateway("empty", bench.target)
        self.addCleanup(gateway.stop)
        page = bench.browser.open(gateway)
        page.get_by_role("heading", name="Waiting for the first event").wait_for()
        shot(page, "empty-live")
        page.keyboard.press("2")
        page.get_by_role("heading", name="No event yet").wait_for()
        page.keyboard.press("4")
        page.get_by_role("heading", name="No dead letters").wait_for()
        page.evaluate("location.hash = '#/events?q=nothing-has-this'")
        page.get_by_role("heading", name="Nothing found").wait_for()
        page.get_by_role("button", name="Clear the filters").click()
        page.get_by_role("heading", name="No event yet").wait_for()
        page.evaluate("location.hash = '#/events/019ac02b-1516-7c1e-8f4d-21b7c09e4d21'")
        page.get_by_role("heading", name="Not found").wait_for()
        shot(page, "not-found")
        close(page)


class Disconnected(unittest.TestCase):
    def test_the_page_says_that_the_gateway_is_away_and_goes_on_when_it_is_back(self):
        gateway = Gateway("away", bench.target)
        self.addCleanup(gateway.stop)
        page = bench.browser.open(gateway)
        page.get_by_text("Following").wait_for()
        gateway.send("plain", {"before": 1})
        page.locator("tr[data-id]").first.wait_for()
        gateway.stop()
        page.get_by_text("Disconnected").wait_for()
        page.get_by_text("The gateway does not answer.").first.wait_for()
        self.assertGreaterEqual(page.locator("tr[data-id]").count(), 1, "the old rows stay")
        shot(page, "disconnected")
        gateway.start()
        gateway.send("plain", {"after": 2})
        page.get_by_text("Following").wait_for(timeout=40_000)
        expect(page.locator("tr[data-id]")).to_have_count(2)
        expect(page.locator(".banner")).to_be_hidden()
        close(page)

    def test_a_token_that_is_no_longer_accepted_ends_the_session(self):
        page = bench.browser.open(bench.gateway, "#/events?outcome=failed")
        page.get_by_role("heading", name="Events").wait_for()
        page.evaluate("sessionStorage['inspector.token'] = 'replaced'")
        page.keyboard.press("3")
        page.get_by_text("The gateway no longer accepts your token.").wait_for()
        page.get_by_label("Admin token").fill(ADMIN)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Webhooks").wait_for()
        close(page)

    def test_an_answer_that_does_not_come_shows_that_it_is_loading(self):
        page = bench.browser.open(bench.gateway, "#/system")
        held = []  # no answer comes
        page.route(re.compile("/admin/events"), lambda route: held.append(route))
        page.keyboard.press("2")
        page.locator(".skeleton").wait_for()
        self.assertEqual(page.locator("[aria-busy=true]").count(), 1)
        shot(page, "loading")
        for route in held:
            route.abort()
        close(page)

    def test_an_error_of_the_gateway_is_shown_with_its_request(self):
        page = bench.browser.open(bench.gateway, "#/system")
        problem = '{"title":"Service Unavailable","status":503,"detail":"the history cannot be read: `disk I/O error`"}'
        page.route(re.compile("/admin/events"), lambda route: route.fulfill(status=503, content_type="application/problem+json", body=problem))
        page.keyboard.press("2")
        page.get_by_role("heading", name="This cannot be shown now").wait_for()
        page.get_by_text("GET /admin/events").wait_for()
        page.get_by_text("the history cannot be read").wait_for()
        shot(page, "error")
        page.unroute_all()
        page.get_by_role("button", name="Try again").click()
        page.get_by_role("searchbox").wait_for()
        page.locator(".failure").wait_for(state="detached")
        close(page)
