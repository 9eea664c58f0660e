# netperf on a guest or load generator, by POSIX sh alone: Python takes seconds on an emulated CPU.
#   tell                   tell which netperf this is
#   install                the same, installing the distribution's package where there is none
#   serve S ADDRESS PORT…  a netserver for each address and port, afresh, that ends by itself
#                          after S seconds
# Exit 3 = no usable netperf here. FOLDER has what is pushed (bin), the process ids and the log;
# KEEP says that the machine's own services are not ours to end.
set -eu
PATH=$FOLDER/bin:$PATH:/usr/sbin:/sbin
pidfile=$FOLDER/netserver.pid
log=$FOLDER/netserver.log

usable() {
  command -v netperf > /dev/null && command -v netserver > /dev/null || return 1
  # without --enable-demo there are no interim results, hence no common window
  said=$(netperf -D -0.2 -V 2>&1) && ! echo "$said" | grep -q 'Demo Mode not configured'
}

tell() {
  if ! usable; then
    echo "no usable netperf: ${1:-none in $PATH} ${said:-}"
    exit 3
  fi
  echo "paths $(command -v netperf) $(command -v netserver)"
  sums=$(sha256sum "$(command -v netperf)" "$(command -v netserver)" | cut -d ' ' -f 1)
  # shellcheck disable=SC2086
  echo fingerprint "$(netperf -V | awk '{ print $NF }')" $sums
}

package() {
  if command -v apt-get; then
    export DEBIAN_FRONTEND=noninteractive
    timeout 300 apt-get -q update && timeout 300 apt-get -qy install --no-install-recommends netperf
  elif command -v dnf; then
    timeout 300 dnf -qy install netperf
  elif command -v zypper; then
    timeout 300 zypper -nq install netperf
  else
    echo "no package manager that is known"
    return 1
  fi
}

install() {
  if usable; then
    tell
  elif package > "$log" 2>&1; then
    echo "package installed"
    tell
  else
    tell "not here, and not as a package: $(tail -n 1 "$log")"
  fi
}

ours() {
  pids=''
  for pid in $(cat "$pidfile" 2> /dev/null); do
    if grep -qs netserver "/proc/$pid/cmdline"; then pids="$pids $pid"; fi
  done
  [ -n "$pids" ]
}

stop() {
  for _ in $(seq 50); do
    ours || break
    for pid in $pids; do
      kill -s KILL -- -"$pid" 2> /dev/null || true # the whole group; nothing in it is to be saved
    done
    sleep 0.1 # a shell cannot wait for who is not its child
  done
  rm -f "$pidfile"
}

listening() {
  # as the kernel writes it: the address's bytes reversed, the port, and 0A for LISTEN
  entry=$(echo "$1" | awk -F . -v port="$2" \
    '{ printf "%02X%02X%02X%02X:%04X 00000000:0000 0A", $4, $3, $2, $1, port }')
  grep -q "$entry" /proc/net/tcp
}

own_addresses() {
  # each NIC answers ARP for its own address alone, as the load generator's do (ip-sysctl(5)): of
  # several NICs in one guest, none may speak for another. The kernel goes by the greater of these.
  nic=$(ip -o -4 address show to "$1/32" | awk 'NR == 1 { print $2 }')
  for setting in arp_ignore=1 arp_announce=2; do
    for at in all "${nic%%@*}"; do
      file=/proc/sys/net/ipv4/conf/$at/${setting%=*}
      if [ "$(cat "$file")" -ge "${setting#*=}" ]; then continue 2; fi
    done
    echo "${setting#*=}" > "$file"
  done
}

serve() {
  lifetime_s=$1
  shift
  stop
  # Debian's package starts one of its own, on all addresses
  if [ -z "${KEEP-}" ] && [ -x /etc/init.d/netperf ] && pidof netserver > /dev/null; then
    /etc/init.d/netperf stop && update-rc.d netperf disable
  fi > /dev/null 2>&1 || true
  : > "$log"
  [ $# -le 2 ] || several=yes
  while [ $# -gt 0 ]; do
    [ -z "${several-}" ] || own_addresses "$1"
    one "$1" "$2"
    shift 2
  done
}

one() {
  if listening "$1" "$2"; then
    stop
    echo "$1:$2 is in use by another program"
    exit 1
  fi
  setsid timeout -s KILL "$lifetime_s" netserver -D -4 -L "$1" -p "$2" >> "$log" 2>&1 < /dev/null &
  pid=$!
  echo $pid >> "$pidfile"
  for _ in $(seq 100); do
    if listening "$1" "$2"; then return 0; fi
    kill -0 $pid 2> /dev/null || break
    sleep 0.1 # nothing tells when a port is bound
  done
  stop
  echo "netserver did not come up on $1:$2: $(tail -n 2 "$log" | tr '\n' ' ')"
  exit 1
}

mkdir -p "$FOLDER"
"$@"
