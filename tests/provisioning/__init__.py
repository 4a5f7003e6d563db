"""Tests of the operator's command line. They share no code with it but the package itself."""
