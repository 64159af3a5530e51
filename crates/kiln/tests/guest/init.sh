#!/bin/busybox sh
# Process 1 of the guest: mounts what a booted Debian has, runs the programs, ends the machine.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup /sys/fs/cgroup
# As systemd makes them: who opens one has the kernel load its module.
mkdir -p /dev/mapper
mknod /dev/loop-control c 10 237
mknod /dev/mapper/control c 10 236
echo root:x:0:0:root:/root:/bin/sh >/etc/passwd
echo root:x:0: >/etc/group
echo 127.0.0.1 localhost guest >/etc/hosts
hostname guest
ip link set lo up
# By a mount's or a rule's name the kernel loads these itself; EROFS is looked for in
# /proc/filesystems by some tests.
modprobe erofs
ulimit -n 20000
echo "guest: kernel $(uname -r)"
while read -r name seconds command; do
    echo "guest: begin $name"
    timeout -k 5 "$seconds" $command </dev/null 2>&1
    echo "guest: end $name $?"
done </guest/programs
echo "guest: done"
poweroff -f
