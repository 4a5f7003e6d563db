"""The benchmark: decoders in nanoseconds a packet, brokers in CPU microseconds a message. See README.md."""
