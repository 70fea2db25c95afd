import unittest

from handler import greet
from pelton import NewEvent, Permanent, mock


class Greet(unittest.TestCase):
    def test_counts_the_visits_of_each_key(self):
        with mock.host(config={"greeting": "Good morning"}) as host:
            greet(mock.event("visit", json={"name": "Ada"}, key="ada"))
            greet(mock.event("visit", json={"name": "Ada"}, key="ada"))

        greeted = NewEvent("greeted", json={"text": "Good morning, Ada! Visit 2."}, key="ada")
        self.assertEqual(host.emitted[1], ("greetings", greeted))
        self.assertEqual(host.state_json("visits/ada"), 2)

    def test_a_visit_without_a_name_is_refused_and_counts_for_nothing(self):
        with mock.host() as host:
            with self.assertRaisesRegex(Permanent, "name: missing"):
                greet(mock.event("visit", json={}, key="ada"))

        self.assertEqual(host.state, {})


if __name__ == "__main__":
    unittest.main()
