"""The gateway and clients that are not ours: see README.md here."""
