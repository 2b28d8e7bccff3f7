"""One way through the page: sign in, see an event, find it, open it, see its attempts, replay it, see it arrive."""

import json
import re
import time
import unittest

from support import ADMIN, SENDER, bench, close, settle, shot, wait_until


class Walk(unittest.TestCase):
    def fail_events(self, n):
        """Sends `n` events that fail, and waits until each is a dead letter. Returns the number of dead letters: an earlier test may have left some."""

        def settled():
            if bench.gateway.ask("waiting?webhook=orders")["total"] == 0:
                return [bench.gateway.ask("dead-letters?webhook=orders")["total"]]

        bench.target.status = 503
        earlier = wait_until(settled, "no event of an earlier test waits")[0]
        for i in range(n):
            self.assertEqual(bench.gateway.send("shop/orders", {"fails": i}), 202)
        wait_until(lambda: settled() == [earlier + n], f"{n} events are given up", 60)
        return earlier + n

    def test_an_event_from_its_arrival_to_its_replay(self):
        bench.target.status = 503
        bench.target.got.clear()
        page = bench.browser.open(bench.gateway)
        page.get_by_text("Following").wait_for()

        # Live: the event is there within a second.
        self.assertEqual(bench.gateway.send("shop/orders", {"order": 1, "note": "pelargonium"}), 202)
        sent = time.monotonic()
        page.locator("tr[data-id]", has_text="shop/orders").first.wait_for()
        took = time.monotonic() - sent
        self.assertLess(took, 1.0, "seconds from the answer to the row")
        print(f"a live event was shown after {took * 1000:.0f} ms")
        event = bench.gateway.event(webhook="orders", since=bench.gateway.sent)
        row = page.locator(f"tr[data-id='{event['id']}']")
        # Its row changes where it is, once the last attempt has failed.
        row.locator(".c-mark").get_by_text("Failed").wait_for()
        shot(page, "live")

        # Events: a word of its body finds it, and only it.
        page.keyboard.press("2")
        page.get_by_role("searchbox").fill("pelargonium")
        page.wait_for_url("**q=pelargonium**")
        page.get_by_text("1 of 1 event").wait_for()
        self.assertEqual(page.locator("tr[data-id]").count(), 1)
        self.assertIn("q=pelargonium", page.url)
        shot(page, "events")

        # The event: three attempts, each with the target's answer.
        page.locator("tr[data-id] a").first.click()
        page.get_by_text("Given up after 3 attempts").wait_for()
        attempts = page.locator(".step details")
        self.assertEqual(attempts.count(), 3)
        for i in range(3):
            self.assertIn(f"Attempt {i + 1}", attempts.nth(i).inner_text())
        self.assertIn("<b>no healthy upstream</b>", attempts.nth(2).inner_text())
        self.assertEqual(page.locator(".step b").count(), 0)
        self.assertEqual(len(bench.target.got), 3)
        shot(page, "event-failed", full=True)
        shot(page, "inspector")  # the README has it

        # The replay asks first, and the event arrives.
        bench.target.status = 200
        page.get_by_role("button", name="Replay").click()
        page.get_by_role("dialog").get_by_text("Replay 1 event?").wait_for()
        page.get_by_role("dialog").get_by_role("button", name="Replay 1 event").click()
        wait_until(lambda: len(bench.target.got) == 4, "the target gets the event")
        self.assertEqual(bench.target.got[3][1], bench.target.got[0][1])
        page.locator("h1").get_by_text("Delivered").wait_for()
        page.get_by_text("Delivered to http_webhook").wait_for()
        self.assertIn("replay", page.get_by_role("heading", name="Actions of operators").locator("xpath=../..").inner_text())
        shot(page, "event-replayed", full=True)
        close(page)

    def test_a_list_that_is_older_than_the_stream_changes_no_event_back(self):
        bench.target.status = 503
        page = bench.browser.open(bench.gateway)
        page.get_by_text("Following").wait_for()
        self.assertEqual(bench.gateway.send("shop/orders", {"order": "stale"}), 202)
        event = bench.gateway.event(webhook="orders", since=bench.gateway.sent)
        mark = page.locator(f"tr[data-id='{event['id']}']").locator(".c-mark")
        mark.get_by_text("Failed").wait_for()
        # A history that is behind gives the list from before the first attempt.
        old = bench.gateway.ask("events?q=stale&limit=60")
        old["events"] = [{**row, "outcome": "waiting", "attempts": 0} for row in old["events"] if row["id"] == event["id"]]
        self.assertEqual(len(old["events"]), 1)
        answer = {"content_type": "application/json", "body": json.dumps(old)}
        page.route(re.compile("/admin/events[?]"), lambda route: route.fulfill(**answer))
        with page.expect_response(re.compile("/admin/events[?].*q=stale")):
            page.get_by_role("searchbox").fill("stale")
        page.wait_for_function("!document.querySelector('[aria-busy=true]')")
        mark.get_by_text("Failed").wait_for()
        self.assertEqual(mark.get_by_text("Failed").count(), 1)
        page.unroute_all()
        bench.target.status = 200
        close(page)

    def test_a_refused_event_shows_its_reason(self):
        self.assertEqual(bench.gateway.send("plain", {"a": 1}, token="wrong-token"), 401)
        event = bench.gateway.event(webhook="plain", since=bench.gateway.sent)
        page = bench.browser.open(bench.gateway, "#/events?outcome=refused&webhook=default/plain")
        row = page.locator(f"tr[data-id='{event['id']}']")
        self.assertIn("unauthenticated", row.inner_text())
        row.get_by_role("link").click()
        page.get_by_text("Refused").first.wait_for()
        text = page.locator("main").inner_text()
        self.assertIn(event["reason"].replace("`", ""), text)
        self.assertIn("The sender got 401; nothing was delivered.", text)
        self.assertTrue(page.get_by_role("button", name="Replay").is_disabled())
        for secret in (SENDER, "wrong-token", ADMIN):
            self.assertNotIn(secret, page.content())
        shot(page, "event-refused", full=True)
        close(page)

    def test_the_refused_events_of_today_are_two_chips_away(self):
        self.assertEqual(bench.gateway.send("plain", {"a": 1}, token="wrong-token"), 401)
        event = bench.gateway.event(webhook="plain", since=bench.gateway.sent)
        page = bench.browser.open(bench.gateway, "#/events")
        chips = page.locator("main")
        chips.get_by_role("button", name="Today").click()
        page.wait_for_url("**since=**")
        chips.get_by_role("button", name="Refused").click()
        page.locator(f"tr[data-id='{event['id']}']").wait_for()
        self.assertEqual(chips.get_by_role("button", name="Today").get_attribute("aria-pressed"), "true")
        chips.get_by_role("button", name="Today").click()
        wait_until(lambda: "since=" not in page.url, "no time is chosen any more")
        close(page)

    def test_dead_letters_are_counted_asked_for_and_replayed_together(self):
        total = self.fail_events(4)
        page = bench.browser.open(bench.gateway, "#/dead?webhook=shop/orders")
        group = page.locator("li.group")
        group.first.wait_for()
        self.assertEqual(group.count(), 1)
        group.get_by_role("button", name="unavailable").click()
        group.locator(".letters a").first.wait_for()
        shot(page, "dead-letters")
        bench.target.status = 200
        before = len(bench.target.got)
        group.get_by_role("button", name=f"Replay {total} events").click()
        page.get_by_role("dialog").get_by_role("button", name=f"Replay {total} events").click()
        page.get_by_text(f"Replayed {total} events.").wait_for()
        wait_until(lambda: len(bench.target.got) == before + total, "the target gets all of them")
        page.get_by_text("No dead letter").first.wait_for()
        close(page)

    def test_a_large_deletion_must_be_typed(self):
        self.fail_events(100)
        page = bench.browser.open(bench.gateway, "#/dead?webhook=shop/orders")
        page.locator("li.group").get_by_role("button", name="Delete").click()
        dialog = page.get_by_role("dialog")
        go = dialog.get_by_role("button", name="Delete 1")
        self.assertTrue(go.is_disabled())
        dialog.get_by_role("textbox").fill("1")
        self.assertTrue(go.is_disabled())
        number = go.inner_text().split()[1].replace(",", "")
        dialog.get_by_role("textbox").fill(number)
        self.assertTrue(go.is_enabled())
        # Escape never does it.
        page.keyboard.press("Escape")
        page.locator("dialog").wait_for(state="detached")
        self.assertEqual(bench.gateway.ask("dead-letters/groups?webhook=orders")["groups"][0]["count"], int(number))
        page.locator("li.group").get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("textbox").fill(number)
        page.keyboard.press("Enter")
        page.get_by_text(f"Deleted {number} events.").wait_for()
        self.assertEqual(bench.gateway.ask("dead-letters/groups?webhook=orders")["groups"], [])
        close(page)

    def test_an_event_that_waits_is_tried_now(self):
        bench.target.status = 503
        self.assertEqual(bench.gateway.send("shop/later", {"late": "maybe"}), 202)
        event = wait_until(lambda: [e for e in bench.gateway.ask("events?webhook=later&outcome=waiting")["events"] if e["attempts"]], "the first attempt")[0]
        page = bench.browser.open(bench.gateway, "#/dead?view=waiting")
        page.locator(f"tr[data-id='{event['id']}']").wait_for()
        shot(page, "waiting")
        page.locator(f"tr[data-id='{event['id']}'] a").click()
        page.get_by_text("Not delivered yet.").wait_for()
        page.get_by_text("the sender need not send it again").wait_for()
        shot(page, "event-waiting", full=True)
        bench.target.status = 200
        page.get_by_role("button", name="Try now").click()
        page.locator("h1").get_by_text("Delivered").wait_for()
        close(page)

    def test_a_test_event_is_sent_past_the_guard(self):
        page = bench.browser.open(bench.gateway, "#/webhooks?q=default/plain")
        page.locator("button.cover", has_text="default/plain").click()
        page.get_by_role("button", name="Send a test event").click()
        page.get_by_role("dialog").get_by_role("button", name="Send 1 test event").click()
        page.get_by_text("Sent 1 test event: delivered").wait_for()
        shot(page, "webhooks")
        close(page)

    def test_the_live_stream_says_how_far_it_is_and_holds_still_while_one_reads(self):
        page = bench.browser.open(bench.gateway)
        page.get_by_text("Following").wait_for()
        page.keyboard.press("p")
        page.get_by_text("Paused").wait_for()
        settle(page)
        rows = page.locator("tr[data-id]").count()
        for i in range(3):
            bench.gateway.send("plain", {"paused": i})
        page.get_by_role("button", name="3 new events").wait_for()
        self.assertEqual(page.locator("tr[data-id]").count(), rows)
        page.get_by_role("button", name="3 new events").click()
        wait_until(lambda: page.locator("tr[data-id]").count() == min(200, rows + 3), "the rows are let in")
        page.get_by_text("Following").wait_for()
        close(page)
