"""Tests of broker/peanutd/api."""
