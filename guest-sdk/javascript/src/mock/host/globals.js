// Node has all of them.
