"""Keyboard alone, rules of accessibility, light and dark, a phone."""

import unittest

from support import ADMIN, TOOLS, bench, close, settle, shot

AXE = TOOLS / "inspector/node_modules/axe-core/axe.min.js"
SCREENS = ["live", "events", "events?outcome=failed,waiting", "events?q=nothing-has-this", "webhooks", "dead", "dead?view=waiting", "system"]


def fill():
    """Events of each outcome."""
    bench.target.status = 503
    bench.gateway.send("shop/orders", {"axe": 1})
    bench.gateway.send("shop/later", {"axe": 2})
    bench.gateway.send("plain", {"axe": 3})
    bench.gateway.send("plain", {"axe": 4}, token="wrong-token")
    bench.gateway.event(webhook="orders", outcome="failed")
    return [bench.gateway.event(outcome=outcome)["id"] for outcome in ("failed", "waiting", "delivered", "refused")]


def violations(page):
    """The rules that axe-core finds broken. It is evaluated by the driver, past the policy of the page."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [f"{rule['id']}: {node['html'][:160]} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


class Keyboard(unittest.TestCase):
    def test_everything_is_done_without_a_mouse(self):
        bench.target.status = 503
        self.assertEqual(bench.gateway.send("shop/orders", {"word": "chrysanthemum"}), 202)
        bench.gateway.event(webhook="orders", outcome="failed", q="chrysanthemum")
        page = bench.browser.open(bench.gateway, token=None)
        page.keyboard.type(ADMIN)  # the field has the focus
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Live").wait_for()
        page.keyboard.press("2")
        page.get_by_role("heading", name="Events").wait_for()
        self.assertEqual(page.evaluate("document.activeElement.tagName"), "H1", "a new screen moves the focus to its heading")
        page.keyboard.press("/")
        page.keyboard.type("chrysanthemum")
        page.wait_for_url("**q=chrysanthemum**")
        page.get_by_text("1 of 1 event").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.get_by_text("Given up after 3 attempts").wait_for()
        bench.target.status = 200
        page.keyboard.press("r")
        page.get_by_role("dialog").wait_for()
        page.keyboard.press("Enter")
        page.locator("h1").get_by_text("Delivered").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("heading", name="Events").wait_for()
        self.assertIn("q=chrysanthemum", page.url)
        for key, name in [("3", "Webhooks"), ("4", "Dead letters"), ("5", "System"), ("1", "Live")]:
            page.keyboard.press(key)
            page.get_by_role("heading", name=name, exact=True).wait_for()
        page.keyboard.press("?")
        page.get_by_role("dialog").get_by_label("Use single keys").uncheck()
        page.keyboard.press("Escape")
        page.keyboard.press("2")
        page.wait_for_timeout(200)
        page.get_by_role("heading", name="Live").wait_for()
        close(page)

    def test_the_chart_chooses_a_time_with_arrow_keys(self):
        fill()
        page = bench.browser.open(bench.gateway, "#/events")
        page.get_by_role("slider", name="From").focus()
        for _ in range(5):
            page.keyboard.press("PageUp")
        page.wait_for_url("**since=**")
        self.assertEqual(page.evaluate("document.activeElement.id"), "From")
        close(page)

    def test_a_focus_is_never_invisible(self):
        page = bench.browser.open(bench.gateway, "#/events")
        page.locator("tr[data-id]").first.wait_for()
        for _ in range(25):
            page.keyboard.press("Tab")
            seen = page.evaluate("""(() => {
                const e = document.activeElement; if (e === document.body) return 'body';
                const ring = e.closest('.row, .top') && e.matches('.cover') ? e.closest('.row, .top') : e.matches('.handle') ? e.querySelector('.ring') : e;
                const style = getComputedStyle(ring);
                return style.outlineStyle !== 'none' || style.stroke !== 'none' ? 'ring' : e.outerHTML.slice(0, 120);
            })()""")
            self.assertIn(seen, ("ring", "body"))
        close(page)


class Axe(unittest.TestCase):
    def check(self, page, what, found):
        for violation in violations(page):
            found.append(f"{what}: {violation}")

    def test_no_rule_is_broken_on_any_screen(self):
        ids = fill()
        found, runs = [], 0
        for scheme in ("light", "dark"):
            for width in (1280, 390):
                page = bench.browser.open(bench.gateway, color_scheme=scheme, viewport={"width": width, "height": 844}, reduced_motion="reduce")
                for screen in SCREENS + [f"events/{id}" for id in ids]:
                    page.evaluate("(screen) => { location.hash = '#/' + screen }", screen)
                    settle(page)
                    self.check(page, f"{screen} {scheme} {width}", found)
                    runs += 1
                    wide = page.evaluate("document.documentElement.scrollWidth")
                    self.assertLessEqual(wide, width, f"{screen} is wider than {width} px")
                    name = screen.split("/")[0].split("?")[0] + ("-waiting" if "waiting" in screen else "")
                    if "nothing" not in screen and "failed" not in screen:
                        shot(page, f"{name if '/' not in screen else 'event'}-{scheme}-{width}")
                page.get_by_role("button", name="Keys").click()
                page.get_by_role("dialog").wait_for()
                self.check(page, f"keys {scheme} {width}", found)
                page.keyboard.press("Escape")
                page.evaluate("location.hash = '#/dead'")
                page.locator("li.group").first.get_by_role("button", name="Delete").click()
                page.get_by_role("dialog").wait_for()
                self.check(page, f"question {scheme} {width}", found)
                page.keyboard.press("Escape")
                page.locator("dialog").wait_for(state="detached")
                page.get_by_role("button", name="Sign out").click()
                page.get_by_label("Admin token").wait_for()
                self.check(page, f"signed out {scheme} {width}", found)
                runs += 3
                close(page)
        self.assertEqual(found, [], "\n".join(found))
        print(f"axe-core: {runs} runs, no violation")

    def test_both_schemes_differ_and_a_choice_outlives_a_reload(self):
        page = bench.browser.open(bench.gateway, color_scheme="dark")
        ground = lambda: page.evaluate("getComputedStyle(document.querySelector('main')).backgroundColor")
        dark = ground()
        page.get_by_role("button", name="Theme: as the system").click()
        light = ground()
        self.assertNotEqual(dark, light)
        page.reload()
        page.get_by_role("button", name="Theme: light").wait_for()
        self.assertEqual(ground(), light)
        close(page)
