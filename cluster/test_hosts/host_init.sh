# The first process of a test host (see hosts.py), in fresh namespaces: makes its file system, starts sshd, reaps orphans.
set -eu
mount -t tmpfs -o "size=$HOST_MEMORY" tmpfs "$HOST_ROOT"
mkdir "$HOST_ROOT/upper" "$HOST_ROOT/work" "$HOST_ROOT/root"
root=$HOST_ROOT/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$HOST_ROOT/upper,workdir=$HOST_ROOT/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=4g tmpfs "$root/dev/shm"
while read -r folder; do
  [ -z "$folder" ] || { mkdir -p "$root$folder"; mount --bind "$folder" "$root$folder"; }
done <<< "$HOST_SHARED"

cp "$HOST_FILES/etc_hosts" "$root/etc/hosts"
hostname "$HOST_NAME"
echo "$HOST_NAME" > "$root/etc/hostname"
# Left on the machine by its own Ray and ssh; a new host has neither.
rm -rf "$root/root/.ray" "$root/root/.ssh"
# What the machine's own Ray makes meanwhile shows through, and is in the way of this, but not of the host.
rm -rf "$root/tmp/ray" "$root"/tmp/ray_* 2> /dev/null || true
mkdir -m 700 "$root/root/.ssh"
install -m 600 "$HOST_FILES/key" "$root/root/.ssh/id_ed25519"
install -m 600 "$HOST_FILES/key.pub" "$root/root/.ssh/authorized_keys"
printf 'Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n' > "$root/root/.ssh/config"

mkdir -p "$root/old" "$root/run/sshd"
# Opened here: the name is out of reach below.
exec 3> "$HOST_FILES/$HOST_NAME.ready"
cd "$root"
pivot_root . old
umount -l /old
cd /
ls /etc/ssh/ssh_host_*_key > /dev/null 2>&1 || ssh-keygen -A > /dev/null
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /usr/sbin/sshd -o UsePAM=no -o PermitRootLogin=prohibit-password
echo ready >&3
exec 3>&-
while :; do sleep 3600 & wait $! || true; done
