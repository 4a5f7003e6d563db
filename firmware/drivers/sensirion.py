"""How Sensirion's chips talk: commands of one or two bytes, answers in words of two bytes and a CRC.

Rule: a word whose CRC is wrong is no word.
"""


def crc8(data):
    """CRC-8, polynomial 0x31, initial value 0xFF (SHT3x data sheet, table 20: 0xBEEF gives 0x92)."""
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x31 if crc & 0x80 else crc << 1) & 0xFF
    return crc


def words(buf):
    """The words of an answer; None if a CRC is wrong."""
    out = []
    for i in range(0, len(buf), 3):
        if crc8(buf[i : i + 2]) != buf[i + 2]:
            return None
        out.append(buf[i] << 8 | buf[i + 1])
    return out
