import unittest

from handler import watch
from pelton import mock

MINUTE = 60_000


class Watch(unittest.TestCase):
    def alerts_after(self, *minutes):
        """How many alerts there are after failed logins at these minutes, six of which within five are too many."""
        with mock.host() as host:
            for minute in minutes:
                watch(mock.event("login.failed", json={}, key="ada", time_ms=int(1000 * MINUTE + minute * MINUTE)))
            self.assertLessEqual(len(host.state_json("window/ada")["value"]["failures_ms"]), 6)
        return len(host.emitted)

    def test_the_window_slides(self):
        self.assertEqual(self.alerts_after(0, 1, 2, 3, 4), 0)
        self.assertEqual(self.alerts_after(0, 1, 2, 3, 4, 4.9), 1)
        self.assertEqual(self.alerts_after(0, 1, 2, 3, 4, 5, 6, 7, 8, 9), 0)
        self.assertEqual(self.alerts_after(0, 2, 4, 4.1, 4.2, 4.3, 4.4), 1)

    def test_one_alert_for_a_long_attack_and_another_after_the_quiet_time(self):
        self.assertEqual(self.alerts_after(*(step / 10 for step in range(50))), 1)
        self.assertEqual(self.alerts_after(*(step / 10 for step in range(100))), 2)

    def test_late_events_count_within_the_window_only(self):
        self.assertEqual(self.alerts_after(0, 1, 3, 4, 4.5, 2), 1)
        self.assertEqual(self.alerts_after(5, 6, 7, 8, 9, 1, 2, 3, 4), 0)


if __name__ == "__main__":
    unittest.main()
