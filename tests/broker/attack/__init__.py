"""The gateway under attack, with a liveness probe beside each: another client's round trip stays under 100 ms."""
