"""Makes the two partitions of a disk members of an md RAID 1 (superblock 1.2) that holds a file system.

usage: md.py DISK FILESYSTEM NAME. Layout: Linux, include/uapi/linux/raid/md_p.h, mdp_superblock_1.
"""
import struct
import sys
import uuid

disk, content, name = sys.argv[1:]
data = open(content, "rb").read()
DATA_OFFSET = 2048  # sectors: as mdadm chooses for small members
image = open(disk, "r+b")
image.seek(2 * 512)
entries = image.read(2 * 128)
array = uuid.uuid4().bytes
for member in range(2):
    first, last = struct.unpack_from("<QQ", entries, member * 128 + 32)
    sectors = last - first + 1
    block = bytearray(512)  # 256 bytes and the roles, 2 bytes a device
    struct.pack_into("<IIII16s32sQIIQIIQQ", block, 0, 0xA92B4EFC, 1, 0, 0, array, name.encode(), 1700000000, 1, 0,
                     len(data) // 512, 0, 2, 0, 0)
    struct.pack_into("<QQQQIIQ16s", block, 128, DATA_OFFSET, sectors - DATA_OFFSET, 8, 0, member, 0, 0, uuid.uuid4().bytes)
    struct.pack_into("<QQQII", block, 192, 1700000000, 1, 0xFFFFFFFFFFFFFFFF, 0, 2)
    struct.pack_into("<HH", block, 256, 0, 1)
    size = 256 + 2 * 2
    total = sum(struct.unpack_from(f"<{size // 4}I", block))
    struct.pack_into("<I", block, 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
    image.seek(first * 512 + 8 * 512)
    image.write(block)
    image.seek((first + DATA_OFFSET) * 512)
    image.write(data)
