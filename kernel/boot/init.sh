#!/bin/busybox sh
# PID 1 of the boot test: says what it finds on the console, one `kanctl: key value` a line, then powers off.
# It only reports; what the figures mean is kernel/boot/report.py's work. No step may stop the others.
busybox mkdir -p /proc /sys /dev /tmp /run /bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev 2>/dev/null
busybox mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
busybox mount -t tmpfs tmpfs /tmp
# No message of the kernel may land in the middle of one of ours; all of them are shown at the end.
busybox dmesg -n 1
export PATH=/bin
say() { echo "kanctl: $*"; }

say init_ns "$(probe clock)"
say release "$(busybox uname -r)"
say version "$(busybox uname -v)"
say cmdline "$(busybox cat /proc/cmdline)"
busybox awk '/^(MemTotal|MemFree|Slab):/ { print "kanctl: " tolower($1) " " $2 }' /proc/meminfo
say preempt "$(busybox cat /sys/kernel/debug/sched/preempt 2>/dev/null)"
say realtime "$(busybox cat /sys/kernel/realtime 2>/dev/null)"
say thp "$(busybox cat /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null)"
say numa_balancing "$(busybox cat /proc/sys/kernel/numa_balancing 2>/dev/null)"
say tasks "$(busybox ls -d /proc/[0-9]* | busybox wc -l)"
[ -e /proc/config.gz ] && say config_sha256 "$(busybox zcat /proc/config.gz | busybox sha256sum | busybox cut -d' ' -f1)"
say timer_ticks "$(busybox awk '/LOC:/ { print $2 }' /proc/interrupts)"

say forkexec_ns "$(probe forkexec 300)"
say write_ns "$(probe write 100 /tmp/file)"

for module in $(busybox cat /modules.list 2>/dev/null); do
	if message=$(busybox modprobe "$module" 2>&1); then say module "$module" loaded; else say module "$module" failed "$message"; fi
done
for file in $(busybox cat /drivers.list 2>/dev/null); do
	[ -e "$file" ] || continue
	if message=$(busybox insmod "$file" 2>&1); then say driver "$file" loaded; else say driver "$file" failed "$message"; fi
done

if [ -x /bin/cyclictest ]; then
	# Load: kernel paths that are long on a busy node, reading /proc and walking /sys.
	(while :; do busybox cat /proc/[0-9]*/status /proc/meminfo /proc/vmstat >/dev/null 2>&1; done) &
	(while :; do busybox find /sys >/dev/null 2>&1; done) &
	say cyclictest "$(cyclictest -q -p80 -i1000 -l1000 -N 2>&1 | busybox tail -n 1)"
	say timer_ticks_loaded "$(busybox awk '/LOC:/ { print $2 }' /proc/interrupts)"
fi
say dmesg begin
busybox dmesg
say dmesg end
say done
busybox poweroff -f
