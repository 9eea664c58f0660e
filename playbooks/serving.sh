# What a server on a guest needs, by POSIX sh alone: Python takes seconds on an emulated CPU. Roles
# put it before a script of their own, which sets SERVER, its program; FOLDER has what is pushed
# (bin), the process ids and the log.
set -eu
PATH=$FOLDER/bin:$PATH:/usr/sbin:/sbin
pidfile=$FOLDER/$SERVER.pid
log=$FOLDER/$SERVER.log

package() {
  if command -v apt-get; then
    export DEBIAN_FRONTEND=noninteractive
    timeout 300 apt-get -q update && timeout 300 apt-get -qy install --no-install-recommends "$1"
  elif command -v dnf; then
    timeout 300 dnf -qy install "$1"
  elif command -v zypper; then
    timeout 300 zypper -nq install "$1"
  else
    echo "no package manager that is known"
    return 1
  fi
}

ours() {
  pids=''
  for pid in $(cat "$pidfile" 2> /dev/null); do
    if grep -qs "$SERVER" "/proc/$pid/cmdline"; then pids="$pids $pid"; fi
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

has() {
  # a socket of address $1, port $2, as the kernel writes it: the address's bytes reversed; $3 is a
  # pattern for its peer and its state
  here=$(echo "$1" | awk -F . -v port="$2" \
    '{ printf "%02X%02X%02X%02X:%04X", $4, $3, $2, $1, port }')
  grep -q ": $here $3" /proc/net/tcp
}

listening() {
  has "$1" "$2" '00000000:0000 0A'
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

free() {
  if listening "$1" "$2"; then
    stop
    echo "$1:$2 is in use by another program"
    exit 1
  fi
}

begin() {
  # in a group of its own; 0 once it listens at address $1, port $2; the rest is the command
  address=$1 port=$2
  shift 2
  setsid timeout -s KILL "$lifetime_s" "$@" >> "$log" 2>&1 < /dev/null &
  pid=$!
  echo $pid >> "$pidfile"
  for _ in $(seq 100); do
    if listening "$address" "$port"; then return 0; fi
    kill -0 $pid 2> /dev/null || break
    sleep 0.1 # nothing tells when a port is bound
  done
  return 1
}

forgotten() {
  # Linux remembers a connection for a minute after this side ended it, and refuses its port to a
  # program that does not say SO_REUSEADDR: wait until it is forgotten; 1 = there was none
  waited=''
  for _ in $(seq 65); do
    has "$1" "$2" '[0-9A-F:]* 0[4-9B]' || break
    waited=yes
    sleep 1
  done
  [ -n "$waited" ]
}

start() {
  # what begin says, or the end of this script
  if begin "$@" || { forgotten "$1" "$2" && begin "$@"; }; then return 0; fi
  stop
  echo "$SERVER did not come up on $1:$2: $(tail -n 2 "$log" | tr '\n' ' ')"
  exit 1
}

mkdir -p "$FOLDER"
