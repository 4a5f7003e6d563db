"""What the tests hold the real codecs against: a plain MQTT codec and the protocol vectors."""
