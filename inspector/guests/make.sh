#!/bin/bash
# Builds guests from distribution packages and by the distributions' own tools, each with the answers of
# the kernel or of a reference tool beside it: OUT/<guest>/{*.img,truth/…}. Run by `./dev guests`; needs
# root (loop mounts), Debian's packages named below, and a Python with requirements.txt (PYTHON). Nothing
# here uses our own code.
set -euo pipefail
out=$(realpath -m "${1:?usage: make.sh OUT}")
here=$(dirname "$(realpath "$0")")
python=${PYTHON:-python3}
"$python" -c 'import regipy' || { echo "make.sh: $python lacks regipy: PYTHON names one that has inspector/guests/requirements.txt" >&2; exit 1; }
work=$(mktemp -d)
mounted=()
loops=()
cleanup() {
    for ((i = ${#mounted[@]} - 1; i >= 0; i--)); do umount "${mounted[i]}" 2>/dev/null || true; done
    for loop in "${loops[@]}"; do losetup -d "$loop" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
[ "$(id -u)" = 0 ] || { echo "make.sh: loop mounts need root" >&2; exit 1; }
for tool in pacman rpm rpmbuild mkfs.btrfs mkfs.xfs pvcreate mdadm mkntfs hivexregedit sgdisk python3; do
    command -v $tool >/dev/null || { echo "make.sh: $tool is missing; on Debian: apt-get install pacman-package-manager rpm btrfs-progs xfsprogs lvm2 mdadm ntfs-3g libhivex-bin libwin-hivex-perl gdisk python3" >&2; exit 1; }
done
mkdir -p "$out"

# mnt NAME IMAGE [options]: mounts and answers the place in $m
mnt() {
    m=$work/mnt-$1
    mkdir -p "$m"
    mount -o "loop${3:+,$3}" "$2" "$m"
    mounted+=("$m")
}
unmnt() {
    umount "${mounted[-1]}"
    unset 'mounted[-1]'
}
# tree DIR: path, kind, size of files, sum or target, as the kernel tells them
tree() {
    (cd "$1" && find . -mindepth 1 -printf '%P\t%y\t%s\t%l\n' | LC_ALL=C sort | while IFS=$'\t' read -r path kind size target; do
        case $kind in
        f) printf '%s\tf\t%s\t%s\n' "$path" "$size" "$(sha256sum <"$path" | cut -d' ' -f1)" ;;
        l) printf '%s\tl\t0\t%s\n' "$path" "$target" ;;
        *) printf '%s\t%s\t0\t\n' "$path" "$kind" ;;
        esac
    done)
}
fresh() { # fresh GUEST: its folders, empty
    rm -rf "${out:?}/$1"
    mkdir -p "$out/$1/truth"
    dir=$out/$1
}
accounts() { # accounts ROOT: users and groups that every guest has
    mkdir -p "$1/etc"
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'daemon:x:2:2:daemon:/sbin:/usr/sbin/nologin' \
        'alice:x:1000:1000:Alice:/home/alice:/bin/bash' 'bob:x:1001:1001::/home/bob:/bin/bash' >"$1/etc/passwd"
    printf '%s\n' 'root:$6$saltsalt$0123456789abcdefghijklmnopqrstuvwxyz:19000:0:99999:7:::' 'daemon:*:19000::::::' \
        'alice:!:19000:0:99999:7:::' 'bob::19000:0:99999:7:::' >"$1/etc/shadow"
    printf '%s\n' 'root:x:0:' 'daemon:x:2:' 'wheel:x:10:alice' 'alice:x:1000:' 'bob:x:1001:' >"$1/etc/group"
    cp "$1/etc/passwd" "$dir/truth/passwd"
}
facts() { printf '%s\t%s\n' "$@" >>"$dir/truth/facts.tsv"; } # JSON pointer, value

# --- Alpine: a bare ext4, apk's database as apk-tools 2 writes it, OpenRC
alpine() {
    fresh alpine
    local root=$work/alpine
    mkdir -p "$root"/{etc/apk,etc/runlevels/{default,boot},etc/init.d,etc/network,lib/apk/db,home/alice,root,bin}
    accounts "$root"
    printf 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME="Alpine Linux v3.20"\n' >"$root/etc/os-release"
    echo 3.20.3 >"$root/etc/alpine-release"
    echo alpine-edge01 >"$root/etc/hostname"
    printf 'auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet static\n\taddress 192.0.2.10/24\n\tgateway 192.0.2.1\n' >"$root/etc/network/interfaces"
    for service in sshd crond; do
        printf '#!/sbin/openrc-run\ncommand=/usr/sbin/%s\n' $service >"$root/etc/init.d/$service"
        ln -s /etc/init.d/$service "$root/etc/runlevels/default/$service"
    done
    : >"$dir/truth/packages.tsv"
    while read -r name version arch origin license; do
        printf 'C:Q1%s=\nP:%s\nV:%s\nA:%s\nS:1000\nI:4096\nT:%s\nU:https://example.org\nL:%s\no:%s\nt:1700000000\nF:usr\nF:usr/bin\nR:%s\n\n' \
            "$(printf '%s' "$name" | sha1sum | cut -c1-26)" "$name" "$version" "$arch" "$name" "$license" "$origin" "$name"
        printf '%s\t%s\t%s\n' "$name" "$version" "$arch" >>"$dir/truth/packages.tsv"
    done <<'L' >"$root/lib/apk/db/installed"
musl 1.2.5-r0 x86_64 musl MIT
busybox 1.36.1-r29 x86_64 busybox GPL-2.0-only
libcrypto3 3.3.2-r0 x86_64 openssl Apache-2.0
openssh-server 9.7_p1-r4 x86_64 openssh SSH-OpenSSH
L
    truncate -s 32M "$dir/disk.img"
    mkfs.ext4 -q -F -d "$root" "$dir/disk.img"
    mnt alpine "$dir/disk.img" ro
    tree "$m" >"$dir/truth/tree.tsv"
    unmnt
    facts /os/0/distro alpine /os/0/version 3.20.3 /os/0/hostname alpine-edge01 /disk/table none /os/0/init openrc
}

# --- Arch: GPT with XFS, the local database written by pacman itself
arch() {
    fresh arch
    local root=$work/arch name version
    mkdir -p "$root"/{var/lib/pacman,etc,home,root,boot}
    accounts "$root"
    printf 'NAME="Arch Linux"\nID=arch\nPRETTY_NAME="Arch Linux"\nBUILD_ID=rolling\n' >"$root/etc/os-release"
    echo arch-ws >"$root/etc/hostname"
    printf '[options]\nArchitecture = x86_64\nSigLevel = Never\nLocalFileSigLevel = Never\n' >"$work/pacman.conf"
    while read -r name version; do
        local p=$work/pkg-$name
        mkdir -p "$p/usr/share/$name"
        echo "$name" >"$p/usr/share/$name/readme"
        printf 'pkgname = %s\npkgbase = %s\npkgver = %s\npkgdesc = %s\nurl = https://example.org\nbuilddate = 1700000000\npackager = x\nsize = 10\narch = x86_64\nlicense = MIT\n' "$name" "$name" "$version" "$name" >"$p/.PKGINFO"
        tar -C "$p" -cJf "$work/$name-$version-x86_64.pkg.tar.xz" .PKGINFO usr
        pacman --config "$work/pacman.conf" --root "$root" --dbpath "$root/var/lib/pacman" --cachedir "$work" \
            --noconfirm --noscriptlet --disable-download-timeout -dd -U "$work/$name-$version-x86_64.pkg.tar.xz" >/dev/null
    done <<'L'
linux 6.11.5.arch1-1
glibc 2.40+r16+gaa533d58ff-2
openssl 3.3.2-1
perl-xml-parser 2:2.47-1
L
    pacman --root "$root" --dbpath "$root/var/lib/pacman" -Q | sed 's/ /\t/; s/$/\tx86_64/' >"$dir/truth/packages.tsv"
    truncate -s 400M "$dir/disk.img"
    sgdisk -Z -n 1:2048:0 -t 1:8304 -c 1:root "$dir/disk.img" >/dev/null
    local part=$work/arch.part
    truncate -s 398M "$part"
    mkfs.xfs -q -L archroot "$part"
    mnt arch "$part"
    cp -a "$root"/. "$m"
    printf 'LABEL=archroot / xfs defaults 0 1\n' >"$m/etc/fstab"
    sync
    tree "$m" >"$dir/truth/tree.tsv"
    unmnt
    dd if="$part" of="$dir/disk.img" bs=1M seek=1 conv=notrunc,sparse status=none
    facts /os/0/distro arch /os/0/hostname arch-ws /disk/table gpt /mounts/0/device /dev/sda1 /os/0/root /dev/sda1
}

# Debian packages without maintainer scripts, unpacked and configured by dpkg itself
debian_root() { # debian_root ROOT
    local cache=$work/debs
    mkdir -p "$cache" "$1/var/lib/dpkg"/{info,updates,triggers}
    touch "$1/var/lib/dpkg/status" "$1/var/lib/dpkg/available"
    (cd "$cache" && [ -n "$(ls)" ] || apt-get -qq download zlib1g libacl1 libattr1 hostname liblz4-1 libzstd1 netbase >/dev/null 2>&1)
    dpkg --root="$1" --force-all --log=/dev/null -i "$cache"/*.deb >/dev/null 2>&1 || true
    dpkg-query --root="$1" -W -f '${Package}\t${Version}\t${Architecture}\t${Status}\n' >"$work/all-packages"
    grep 'install ok' "$work/all-packages" | cut -f1-3 >"$dir/truth/packages.tsv"
}

# --- Ubuntu's layout: ESP, /boot, a volume group ubuntu-vg with ubuntu-lv; netplan
ubuntu() {
    fresh ubuntu-lvm
    local root=$work/ubuntu
    mkdir -p "$root"/{etc/netplan,boot,home,root}
    debian_root "$root"
    accounts "$root"
    printf 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\nVERSION="24.04.1 LTS (Noble Numbat)"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n' >"$root/etc/os-release"
    echo ubuntu-web >"$root/etc/hostname"
    printf 'network:\n  version: 2\n  ethernets:\n    enp1s0:\n      dhcp4: true\n    enp2s0:\n      addresses: [198.51.100.7/24, "2001:db8::7/64"]\n      routes:\n        - to: default\n          via: 198.51.100.1\n      nameservers:\n        addresses: [198.51.100.53]\n        search: [example.org]\n' >"$root/etc/netplan/50-cloud-init.yaml"
    printf '/dev/mapper/ubuntu--vg-ubuntu--lv / ext4 defaults 0 1\nLABEL=bootfs /boot ext4 defaults 0 2\n' >"$root/etc/fstab"
    local lv=$work/ubuntu.lv boot=$work/ubuntu.boot
    truncate -s 96M "$lv"
    mkfs.ext4 -q -F -d "$root" "$lv"
    mkdir -p "$work/bootfiles"
    echo kernel >"$work/bootfiles/vmlinuz-6.8.0-45-generic"
    truncate -s 30M "$boot"
    mkfs.ext4 -q -F -L bootfs -d "$work/bootfiles" "$boot"
    truncate -s 200M "$dir/disk.img"
    sgdisk -Z -n 1:2048:+30M -t 1:8300 -n 2:0:0 -t 2:8e00 "$dir/disk.img" >/dev/null
    dd if="$boot" of="$dir/disk.img" bs=1M seek=1 conv=notrunc,sparse status=none
    local start size
    start=$(sgdisk -i 2 "$dir/disk.img" | sed -n 's/^First sector: \([0-9]*\).*/\1/p')
    size=$(($(stat -c %s "$dir/disk.img") - start * 512 - 1048576))
    lvm_place "$work/ubuntu.pvs" ubuntu-vg ubuntu-lv "$lv" 1 "$dir/disk.img:$((start * 512)):$size"
    mnt ubuntu "$lv" ro
    tree "$m" >"$dir/truth/tree.tsv"
    unmnt
    facts /os/0/distro ubuntu /os/0/version 24.04 /os/0/hostname ubuntu-web /os/0/root /dev/ubuntu-vg/ubuntu-lv /mounts/1/device /dev/sda1
    printf 'enp1s0\tdhcp\nenp2s0\t198.51.100.7/24 2001:db8::7/64\n' >"$dir/truth/interfaces.tsv"
}

# lvm_place NAME VG LV CONTENT STRIPES FILE:OFFSET:SIZE…: lvm2 makes physical volumes and group and writes
# the metadata; the content goes where `lvs --segments` says that each extent lies.
lvm_place() {
    local vg=$2 lv=$3 content=$4 stripes=$5 device devices=()
    shift 5
    for place in "$@"; do
        IFS=: read -r file offset size <<<"$place"
        device=$(losetup --show -f -o "$offset" --sizelimit "$size" "$file")
        loops+=("$device")
        devices+=("$device")
    done
    local config='devices { dir="/dev" scan=["/dev"] use_devicesfile=0 } global { use_lvmpolld=0 event_activation=0 locking_type=1 } activation { udev_sync=0 udev_rules=0 }'
    local q="--config=$config"
    pvcreate "$q" -qq -ff -y "${devices[@]}" >/dev/null 2>&1
    vgcreate "$q" -qq -s 4M "$vg" "${devices[@]}" >/dev/null 2>&1
    local extents=$((($(stat -c %s "$content") + 4194303) / 4194304))
    # `lvcreate` insists on device-mapper; `vgcfgrestore` writes (and checks) metadata without it.
    vgcfgbackup "$q" -qq -f "$work/vg.conf" "$vg" >/dev/null 2>&1
    python3 "$here/lv.py" "$work/vg.conf" "$lv" "$extents" "$stripes"
    vgcfgrestore "$q" -qq -f "$work/vg.conf" "$vg" >/dev/null 2>&1
    lvs "$q" --noheadings --units b --nosuffix --separator ' ' -o lv_name,stripes,stripe_size,devices --segments "$vg" 2>/dev/null | sed 's/^ *//' >"$dir/truth/lvs.txt"
    pvs "$q" --noheadings --units b --nosuffix --separator ' ' -o pv_name,pe_start,pv_uuid 2>/dev/null | sed 's/^ *//' >"$dir/truth/pvs.txt"
    python3 "$here/stripe.py" "$content" "$dir/truth/lvs.txt" "$dir/truth/pvs.txt"
    sync
    for device in "${devices[@]}"; do losetup -d "$device"; done
    loops=()
}

# --- LVM striped over two disks
striped() {
    fresh lvm-striped
    local root=$work/striped lv=$work/striped.lv
    mkdir -p "$root"/{etc,home,root}
    debian_root "$root"
    accounts "$root"
    printf 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n' >"$root/etc/os-release"
    echo striped-db >"$root/etc/hostname"
    head -c 3000000 /dev/urandom >"$root/home/random"
    truncate -s 96M "$lv"
    mkfs.ext4 -q -F -d "$root" "$lv"
    truncate -s 80M "$dir/disk.img" "$dir/disk2.img"
    lvm_place s vg0 root "$lv" 2 "$dir/disk.img:0:83886080" "$dir/disk2.img:0:83886080"
    mnt striped "$lv" ro
    tree "$m" >"$dir/truth/tree.tsv"
    unmnt
    facts /os/0/distro debian /os/0/hostname striped-db /os/0/root /dev/vg0/root
}

# --- md RAID 1 of two partitions, superblock 1.2; `mdadm --examine` must accept it
md() {
    fresh md-raid1
    local root=$work/md fs=$work/md.fs
    mkdir -p "$root"/{etc,home,root}
    debian_root "$root"
    accounts "$root"
    printf 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n' >"$root/etc/os-release"
    echo mirror01 >"$root/etc/hostname"
    truncate -s 60M "$fs"
    mkfs.ext4 -q -F -d "$root" "$fs"
    truncate -s 150M "$dir/disk.img"
    sgdisk -Z -n 1:2048:+70M -t 1:fd00 -n 2:0:+70M -t 2:fd00 "$dir/disk.img" >/dev/null
    python3 "$here/md.py" "$dir/disk.img" "$fs" mirror01:root
    for n in 1 2; do
        local start
        start=$(sgdisk -i $n "$dir/disk.img" | sed -n 's/^First sector: \([0-9]*\).*/\1/p')
        device=$(losetup --show -f -o $((start * 512)) --sizelimit $((70 << 20)) "$dir/disk.img")
        loops+=("$device")
        mdadm --examine "$device" >"$dir/truth/mdadm-$n.txt"
        losetup -d "$device"
        loops=()
    done
    grep -q 'Raid Level : raid1' "$dir/truth/mdadm-1.txt"
    grep -q 'Checksum : .* - correct' "$dir/truth/mdadm-2.txt"
    mnt md "$fs" ro
    tree "$m" >"$dir/truth/tree.tsv"
    unmnt
    facts /os/0/distro debian /os/0/hostname mirror01
}

# --- SLES: btrfs with the snapper layout, rpm's database by rpm itself (Debian's writes SQLite, SLES' own NDB)
sles() {
    fresh sles-snapshots
    local root name version release
    truncate -s 300M "$dir/disk.img"
    mkfs.btrfs -q -L sles "$dir/disk.img" >/dev/null 2>&1
    mnt sles "$dir/disk.img"
    local top=$m
    btrfs -q subvolume create "$top/@"
    for sub in home var .snapshots; do btrfs -q subvolume create "$top/@/$sub"; done
    mkdir "$top/@/.snapshots/1"
    btrfs -q subvolume create "$top/@/.snapshots/1/snapshot"
    root=$top/@/.snapshots/1/snapshot
    mkdir -p "$root"/{etc,root,home,var,.snapshots,usr/lib/sysimage/rpm}
    accounts "$root"
    printf 'NAME="SLES"\nVERSION="15-SP6"\nVERSION_ID="15.6"\nPRETTY_NAME="SUSE Linux Enterprise Server 15 SP6"\nID="sles"\nID_LIKE="suse"\nCPE_NAME="cpe:/o:suse:sles:15:sp6"\n' >"$root/etc/os-release"
    echo sles-hana >"$root/etc/hostname"
    while read -r name version release; do
        printf 'Name: %s\nVersion: %s\nRelease: %s\nSummary: x\nLicense: MIT\nBuildArch: noarch\n%%description\nx\n%%files\n' "$name" "$version" "$release" >"$work/$name.spec"
        rpmbuild -bb --quiet --define "_topdir $work/rpmbuild" "$work/$name.spec" >/dev/null 2>&1
    done <<'L'
aaa_base 84.87 150400.1
libopenssl3 3.1.4 150600.5.10.1
SAPHanaSR 0.162.3 150000.4
L
    rpm --root "$root" --dbpath /usr/lib/sysimage/rpm --initdb
    rpm --root "$root" --dbpath /usr/lib/sysimage/rpm --nodeps --force-debian -i "$work"/rpmbuild/RPMS/noarch/*.rpm
    rpm --root "$root" --dbpath /usr/lib/sysimage/rpm -qa --qf '%{NAME}\t%{VERSION}-%{RELEASE}\t%{ARCH}\n' | sort >"$dir/truth/packages.tsv"
    ls "$root/usr/lib/sysimage/rpm" >"$dir/truth/rpmdb-files.txt"
    local uuid
    uuid=$(blkid -s UUID -o value "$dir/disk.img")
    printf 'UUID=%s / btrfs defaults 0 0\nUUID=%s /home btrfs subvol=/@/home 0 0\nUUID=%s /var btrfs subvol=/@/var 0 0\nUUID=%s /.snapshots btrfs subvol=/@/.snapshots 0 0\n' "$uuid" "$uuid" "$uuid" "$uuid" >"$root/etc/fstab"
    echo hello >"$top/@/home/note"
    for n in 2 3; do
        mkdir "$top/@/.snapshots/$n"
        btrfs -q subvolume snapshot -r "$root" "$top/@/.snapshots/$n/snapshot"
    done
    echo after >"$root/etc/after-snapshot"
    btrfs subvolume set-default "$(btrfs inspect-internal rootid "$root")" "$top"
    sync
    btrfs subvolume list "$top" | sed 's/.* path //' | sort >"$dir/truth/subvolumes.txt"
    unmnt
    mnt sles-default "$dir/disk.img" ro
    tree "$m" >"$dir/truth/tree.tsv"
    unmnt
    facts /os/0/distro sles /os/0/version 15.6 /os/0/hostname sles-hana
    printf '1\n' >"$dir/truth/systems"
}

with_parents() { # hivexregedit makes no parents
    python3 - "$1" <<'P'
import sys
seen = set()
for line in open(sys.argv[1]):
    if line.startswith("["):
        parts = line.strip("[]\n").split("\\")
        for n in range(3, len(parts)):
            if (parent := "\\".join(parts[:n])) not in seen:
                seen.add(parent)
                print(f"[{parent}]\n")
        seen.add("\\".join(parts))
    print(line, end="")
P
}

# --- Windows: NTFS with hives made by hivexregedit, WOW6432Node, a hive whose newer state is in its logs
windows() {
    fresh windows
    local fs=$work/windows.ntfs
    truncate -s 60M "$fs"
    mkntfs -q -F -L System "$fs" >/dev/null 2>&1
    m=$work/mnt-windows
    mkdir -p "$m"
    ntfs-3g "$fs" "$m"
    mounted+=("$m")
    mkdir -p "$m/Windows/System32/config" "$m/Windows/System32/drivers/etc" "$m/Program Files" "$m/Users/Public"
    for hive in SOFTWARE SYSTEM; do
        python3 "$here/hive.py" "$m/Windows/System32/config/$hive"
    done
    hivexregedit --merge --prefix 'HKEY_LOCAL_MACHINE\SOFTWARE' "$m/Windows/System32/config/SOFTWARE" <(with_parents "$here/software.reg")
    hivexregedit --merge --prefix 'HKEY_LOCAL_MACHINE\SYSTEM' "$m/Windows/System32/config/SYSTEM" <(with_parents "$here/system.reg")
    cp "$m/Windows/System32/config/SYSTEM" "$work/system.old"
    cp "$work/system.old" "$work/system.new"
    hivexregedit --merge --prefix 'HKEY_LOCAL_MACHINE\SYSTEM' "$work/system.new" "$here/later.reg"
    python3 "$here/dirty.py" "$work/system.old" "$work/system.new" "$m/Windows/System32/config/SYSTEM"
    "$python" "$here/replay.py" "$m/Windows/System32/config/SYSTEM" "$dir/truth"
    printf '127.0.0.1 localhost\r\n192.0.2.9 build\r\n' >"$m/Windows/System32/drivers/etc/hosts"
    echo MZ >"$m/Windows/System32/ntoskrnl.exe"
    sync
    tree "$m" >"$dir/truth/tree.tsv"
    unmnt
    truncate -s 64M "$dir/disk.img"
    python3 - "$dir/disk.img" <<'P'
import struct, sys
with open(sys.argv[1], "r+b") as disk:
    disk.seek(440)
    disk.write(struct.pack("<IH", 0xCAFE1234, 0) + struct.pack("<B3sB3sII", 0x80, b"", 7, b"", 2048, 122880))
    disk.seek(510)
    disk.write(b"\x55\xaa")
P
    dd if="$fs" of="$dir/disk.img" bs=1M seek=1 conv=notrunc,sparse status=none
    facts /os/0/type windows /os/0/hostname "$(cat "$dir/truth/computer-name")" /disk/table dos
    printf 'Server Backup\t3.2.1\tamd64\nLegacy Agent\t7.0\ti386\n' >"$dir/truth/packages.tsv"
}

for guest in ${2:-alpine arch ubuntu striped md sles windows}; do
    echo "building $guest" >&2
    $guest
done
