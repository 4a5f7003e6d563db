"""Tests of the firmware: pure modules on both interpreters, the whole node against scripted and real brokers."""
