"""Writes an empty registry hive (regf 1.5): a base block, one bin, a root key. usage: hive.py FILE

Layout: the regf specification of M. Suhanov, "Windows registry file format specification".
"""
import struct
import sys

FILETIME = 133_000_000_000_000_000
base = bytearray(4096)
struct.pack_into("<4sIIQIIIIIII", base, 0, b"regf", 1, 1, FILETIME, 1, 5, 0, 1, 32, 4096, 1)
total = 0
for word in struct.unpack_from("<127I", base):
    total ^= word
struct.pack_into("<I", base, 508, {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(total, total))
security = bytes.fromhex("01000480300000003c000000000000001400000002001c000100000000021400" "3f000f000101000000000005120000000000" "0000")
security += bytes(72 - len(security)) + bytes.fromhex("010100000000000512000000010100000000000512000000")
hbin = bytearray(4096)
struct.pack_into("<4sIIQQI", hbin, 0, b"hbin", 0, 4096, 0, FILETIME, 0)
name = b"$$$PROTO.HIV"
nk_size = (4 + 76 + len(name) + 7) // 8 * 8
sk_at = 32 + nk_size
sk_size = (4 + 20 + len(security) + 7) // 8 * 8
struct.pack_into("<i2sHQIIIIIIIIIIIIIIIHH", hbin, 32, -nk_size, b"nk", 0x2C, FILETIME, 0, 0xFFFFFFFF, 0, 0, 0xFFFFFFFF,
                 0xFFFFFFFF, 0, 0xFFFFFFFF, sk_at, 0xFFFFFFFF, 0, 0, 0, 0, 0, len(name), 0)
hbin[32 + 80 : 32 + 80 + len(name)] = name
struct.pack_into("<i2sHIIII", hbin, sk_at, -sk_size, b"sk", 0, sk_at, sk_at, 1, len(security))
hbin[sk_at + 24 : sk_at + 24 + len(security)] = security
free = sk_at + sk_size
struct.pack_into("<i", hbin, free, 4096 - free)
open(sys.argv[1], "wb").write(base + hbin)
