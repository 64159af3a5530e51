#!/bin/busybox sh
# The guest's first program: reaches the disk and goes on from there.
busybox=/bin/busybox
$busybox mkdir -p /dev /proc /new
$busybox mount -t devtmpfs dev /dev
$busybox mount -t proc proc /proc
$busybox modprobe virtio_pci
$busybox modprobe virtio_blk
tries=0
until [ -b /dev/vda ] || [ $tries -eq 100 ]; do
    $busybox sleep 0.1
    tries=$((tries + 1))
done
$busybox mount -t ext4 /dev/vda /new
exec $busybox switch_root /new /guest/init
